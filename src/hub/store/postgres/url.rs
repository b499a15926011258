//! The connection URL. It holds a password: nothing of it is ever said, be it right or wrong.

use sqlx::postgres::PgConnectOptions;

use super::OpenError;

/// What may stand behind the question mark. The client logs what it does not know and goes on, which
/// tells a secret to the log, and leaves out what a person has asked for.
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// What the server is told at the start. It gives a statement up when we do, so that nothing happens
/// later for which nobody waits; and it finds out soon that we are gone, for until then it holds our
/// lock against us.
const PATIENCE: [(&str, &str); 6] = [
    ("statement_timeout", "9s"),
    ("lock_timeout", "8s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20s"),
];

pub(super) fn parse(url: &str) -> Result<PgConnectOptions, OpenError> {
    let url = url.trim();
    let (_, query) = url.split_once('?').unwrap_or_default();
    let mut parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let is_known = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        PARAMETERS.contains(&name)
    };
    if !parameters.all(is_known) {
        return Err(OpenError::Parameter(PARAMETERS.join(", ")));
    }
    let options: PgConnectOptions = url.parse().map_err(|_| OpenError::Url)?;
    Ok(options.application_name("rehome-hub").options(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_and_not_quoted() {
        let secret = "hunter2";
        for (url, says) in [
            ("hunter2", "cannot be read"),
            ("postgres://rehome:hunter2@db:port/hub", "cannot be read"),
            // What a password does to a URL when it is not encoded.
            ("postgres://rehome:hunter2/x@db/hub", "cannot be read"),
            ("postgres://rehome:12?hunter2@db/hub", "a parameter"),
            ("postgres://db/hub?sslmode=hunter2", "cannot be read"),
            ("postgres://db/hub?sslpassword=hunter2", "a parameter"),
            ("postgres://db/hub?sslmode=require&hunter2", "a parameter"),
        ] {
            let refused = parse(url).unwrap_err();
            let text = format!("{refused} {refused:?}");
            assert!(text.contains(says), "{url}: {text}");
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn what_is_known_is_taken_up() {
        let url =
            "postgres://rehome:hunter2@db.plant:6432/hub?sslmode=verify-full&sslrootcert=ca.crt\n";
        let options = parse(url).unwrap();
        assert_eq!(options.get_host(), "db.plant");
        assert_eq!(options.get_port(), 6432);
        assert_eq!(options.get_database(), Some("hub"));
        let patience = options.get_options().unwrap();
        assert!(patience.contains("statement_timeout=9s"), "{patience}");
    }
}
