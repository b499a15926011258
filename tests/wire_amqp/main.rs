//! The AMQP of `wire`, byte by byte: what SDKs say, and what nobody should.

#![cfg(test)]

mod bytes;

use std::time::Duration;

use rehome::wire::amqp::{
    Connection, End, Event, Limits, NoLink, Outcome, Reply, SaslCode, Session,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::bytes::{
    ATTACH, BARE, BEGIN, CLOSE, DETACH, DISPOSITION, END, FLOW, OPEN, SASL, TRANSFER, amqp, attach,
    begin, binary, codes, contains, flow, frame, list, message, no, null, open, said, symbol, text,
    transfer, uint, yes,
};

fn session() -> Session {
    Session::new(
        Limits::default().session,
        &["PLAIN", "TPM"],
        "us".to_owned(),
    )
}

/// Feeds everything and accepts links; the other events, and the end if there is one.
fn feed(session: &mut Session, mut bytes: &[u8]) -> (Vec<Event>, Option<End>) {
    let mut events = Vec::new();
    loop {
        match session.feed(bytes) {
            Ok((used, event)) => {
                bytes = &bytes[used..];
                match event {
                    Some(Event::Attach(_)) => session.accept(),
                    Some(event) => events.push(event),
                    None => return (events, None),
                }
            }
            Err(end) => return (events, Some(end)),
        }
    }
}

/// With a receiving link 0 and a sending link 1, both of one name.
fn established() -> Session {
    let mut session = session();
    let opening = [
        BARE.to_vec(),
        open(65_536),
        begin(),
        attach("link", 0, true, "s/registrations/d"),
        attach("link", 1, false, "s/registrations/d"),
    ];
    assert_eq!(feed(&mut session, &opening.concat()), (vec![], None));
    assert_eq!(codes(&mut session), [0, OPEN, BEGIN, ATTACH, ATTACH, FLOW]);
    session
}

fn reply(size: usize) -> Reply {
    Reply {
        correlation_id: vec![],
        properties: vec![],
        body: vec![b'x'; size],
    }
}

/// As the X.509 devices of all SDKs do it; the links share a name, as some generic clients do it.
#[test]
fn r21_a_client_without_sasl_is_served_from_its_first_byte() {
    let mut session = established();
    let sent = [flow(0, 100, false), transfer(1, 0, false, &message(2))];
    let (events, _) = feed(&mut session, &sent.concat());
    let [Event::Message(delivery, message)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(message.body, b"  ");
    session.settle(delivery, &Outcome::Accepted);
    session.send(&reply(10)).unwrap();
    assert_eq!(
        codes(&mut session),
        [DISPOSITION, TRANSFER],
        "accepted first, then answered"
    );
    // It hangs up without a word (Java), or with all of them (Node).
    let ends = [
        amqp(DETACH, &[uint(0), yes()]),
        amqp(DETACH, &[uint(1), yes()]),
        amqp(END, &[]),
        amqp(CLOSE, &[]),
    ];
    assert_eq!(
        feed(&mut session, &ends.concat()),
        (vec![], Some(End::Closed))
    );
    assert_eq!(codes(&mut session), [DETACH, DETACH, END, CLOSE]);
}

#[test]
fn r20_links_are_read_whichever_comes_first_and_their_addresses_echoed() {
    for receiver_first in [true, false] {
        let mut session = session();
        let opening = [BARE.to_vec(), open(65_536), begin()].concat();
        feed(&mut session, &opening);
        said(&mut session);
        for receives in [receiver_first, !receiver_first] {
            let address = "amqps://host/s/registrations/d";
            let bytes = attach("a", u32::from(receives), receives, address);
            let (_, event) = session.feed(&bytes).unwrap();
            let Some(Event::Attach(attach)) = event else {
                panic!("{event:?}");
            };
            assert_eq!(attach.sends, !receives);
            assert_eq!(attach.address.as_deref(), Some(address));
            assert_eq!(
                attach.property("com.microsoft:api-version"),
                Some("2019-03-31")
            );
            session.accept();
            let frames = said(&mut session);
            assert!(contains(&frames[0].1, address), "echoed");
            assert_eq!(
                frames.len(),
                if receives { 1 } else { 2 },
                "credit for what it sends"
            );
        }
    }
}

#[test]
fn a_link_that_is_refused_is_opened_without_a_terminus_and_closed() {
    let mut session = session();
    let opening = [BARE.to_vec(), open(65_536), begin()].concat();
    feed(&mut session, &opening);
    said(&mut session);
    session.feed(&attach("a", 0, true, "elsewhere")).unwrap();
    session.refuse("amqp:not-found", "{}");
    let frames = said(&mut session);
    assert_eq!((frames[0].0, frames[1].0), (ATTACH, DETACH));
    assert!(!contains(&frames[0].1, "elsewhere"));
    assert!(contains(&frames[1].1, "amqp:not-found"));
    // Its answer to that, and another attempt.
    let bytes = [amqp(DETACH, &[uint(0), yes()]), attach("a", 0, true, "s")].concat();
    let (_, end) = feed(&mut session, &bytes);
    assert_eq!(end, None);
    assert!(session.is_established());
}

#[test]
fn sasl_takes_as_many_steps_as_its_mechanism() {
    let mut session = session();
    let init = frame(
        1,
        0,
        &list(
            0x41,
            &[
                symbol("TPM"),
                binary(b"\0s\0d\0ek"),
                text("s/registrations/d"),
            ],
        ),
    );
    let (events, _) = feed(&mut session, &[SASL, &init].concat());
    let [Event::SaslInit(init)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(
        (init.mechanism.as_str(), &init.response[..]),
        ("TPM", &b"\0s\0d\0ek"[..])
    );
    assert_eq!(init.hostname.as_deref(), Some("s/registrations/d"));
    let offered = said(&mut session);
    assert_eq!((offered[0].1.as_slice(), offered[1].0), (SASL, 0x40));
    assert!(contains(&offered[1].1, "PLAIN") && contains(&offered[1].1, "TPM"));
    for challenge in [&[0][..], &[0x80, 1, 2], &[0xc1, 3]] {
        session.challenge(challenge);
        let asked = said(&mut session);
        assert!(asked[0].1.ends_with(challenge));
        let response = frame(1, 0, &list(0x43, &[binary(b"\0answer")]));
        let (events, _) = feed(&mut session, &response);
        assert_eq!(events, [Event::SaslResponse(b"\0answer".to_vec())]);
    }
    session.outcome(SaslCode::Ok).unwrap();
    assert_eq!(codes(&mut session), [0x44]);
    let (_, end) = feed(&mut session, &[BARE, &open(512)].concat());
    assert_eq!((end, codes(&mut session)), (None, vec![0, OPEN]));
    assert!(session.is_open());
}

#[test]
fn a_failed_authentication_is_the_end() {
    let mut session = session();
    let init = frame(1, 0, &list(0x41, &[symbol("PLAIN"), binary(b"x")]));
    feed(&mut session, &[SASL, &init].concat());
    assert_eq!(session.outcome(SaslCode::Auth), Err(End::Unauthenticated));
    let outcome = said(&mut session).pop().unwrap();
    assert!(outcome.1.ends_with(&[0x50, 1]), "{outcome:?}");
}

#[test]
fn what_breaks_the_rules_is_told_so_and_cut() {
    let opened = [BARE.to_vec(), open(65_536)].concat();
    let begun = [opened.clone(), begin()].concat();
    let other_channel = frame(0, 1, &list(FLOW, &[null(), uint(1), uint(0), uint(1)]));
    let links: Vec<u8> = (0..5).flat_map(|at| attach("a", at, true, "s")).collect();
    for (before, bytes, condition) in [
        (&BARE.to_vec(), begin(), "amqp:illegal-state"),
        (
            &BARE.to_vec(),
            frame(1, 0, &list(0x41, &[])),
            "amqp:not-allowed",
        ),
        (
            &BARE.to_vec(),
            frame(0, 0, &vec![0; 9000]),
            "amqp:decode-error",
        ),
        (&opened, open(512), "amqp:illegal-state"),
        (&opened, attach("a", 0, true, "s"), "amqp:illegal-state"),
        (&opened, vec![0xff; 8], "amqp:decode-error"),
        (&begun, begin(), "amqp:resource-limit-exceeded"),
        (&begun, other_channel, "amqp:not-allowed"),
        (&begun, amqp(0x19, &[]), "amqp:not-implemented"),
        (&begun, links, "amqp:resource-limit-exceeded"),
        (&begun, amqp(ATTACH, &[text("a")]), "amqp:invalid-field"),
        (
            &begun,
            transfer(3, 0, false, b""),
            "amqp:session:unattached-handle",
        ),
    ] {
        let mut session = session();
        assert_eq!(feed(&mut session, before), (vec![], None));
        said(&mut session);
        let (_, end) = feed(&mut session, &bytes);
        assert!(
            matches!(end, Some(End::Violation(_))),
            "{condition}: {end:?}"
        );
        let frames = said(&mut session);
        let (code, last) = frames.last().unwrap();
        assert_eq!(*code, CLOSE, "{condition}");
        assert!(contains(last, condition), "{condition}: {last:?}");
        // An error is told on an open connection.
        assert_eq!(frames[0].0 == OPEN, before == BARE, "{condition}");
        assert!(session.feed(b"").is_ok());
    }
}

#[test]
fn messages_are_bounded_however_they_come() {
    let cut = |condition: &str, bytes: Vec<u8>| {
        let mut session = established();
        let (_, end) = feed(&mut session, &bytes);
        assert!(
            matches!(end, Some(End::Violation(_))),
            "{condition}: {end:?}"
        );
        let last = said(&mut session).pop().unwrap().1;
        assert!(contains(&last, condition), "{condition}");
    };
    let long = message(60_000);
    let pieces = [transfer(1, 0, true, &long), transfer(1, 0, true, &long)].concat();
    cut("amqp:link:message-size-exceeded", pieces);
    cut("amqp:decode-error", frame(0, 0, &vec![0; 70_000]));
    cut("amqp:decode-error", transfer(1, 0, false, b"no message"));
    cut("amqp:not-allowed", transfer(0, 0, false, &message(2)));
    cut("amqp:invalid-field", amqp(TRANSFER, &[uint(1)]));
    // Nothing is settled meanwhile: the eleventh exceeds the credit.
    let many: Vec<u8> = (0..11)
        .flat_map(|id| transfer(1, id, false, &message(2)))
        .collect();
    cut("amqp:link:transfer-limit-exceeded", many);
}

#[test]
fn messages_come_in_pieces_and_may_be_given_up() {
    let mut session = established();
    let whole = message(5000);
    let (first, rest) = whole.split_at(1234);
    let aborted = amqp(
        TRANSFER,
        &[
            uint(1),
            null(),
            null(),
            null(),
            null(),
            no(),
            null(),
            null(),
            null(),
            yes(),
        ],
    );
    let bytes = [
        transfer(1, 0, true, b"begun and"),
        aborted,
        transfer(1, 1, true, first),
        transfer(1, 1, true, b""),
        transfer(1, 1, false, rest),
    ];
    // Byte by byte, as WebSocket clients may send it.
    let mut waiting = Vec::new();
    let mut events = Vec::new();
    for byte in bytes.concat() {
        waiting.push(byte);
        let (used, event) = session.feed(&waiting).unwrap();
        waiting.drain(..used);
        events.extend(event);
    }
    let [Event::Message(_, message)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(message.body.len(), 5000);
}

#[test]
fn replies_fit_the_clients_frames_and_wait_for_its_credit() {
    let mut session = session();
    let opening = [BARE.to_vec(), open(512), begin(), attach("a", 5, true, "s")];
    feed(&mut session, &opening.concat());
    said(&mut session);
    for _ in 0..10 {
        session.send(&reply(2000)).unwrap();
    }
    assert_eq!(
        session.send(&reply(1)),
        Err(NoLink),
        "no more than its credit would be"
    );
    assert!(codes(&mut session).is_empty(), "no credit, no message");
    feed(&mut session, &flow(5, 2, false));
    let frames = said(&mut session);
    assert_eq!(frames.len(), 10, "two messages of five frames");
    assert!(
        frames
            .iter()
            .all(|(code, bytes)| *code == TRANSFER && bytes.len() <= 512)
    );
    // Settled by the client or not, we are done with it.
    let disposition = |settled| {
        amqp(
            DISPOSITION,
            &[yes(), uint(0), uint(1), settled, list(0x24, &[])],
        )
    };
    feed(&mut session, &disposition(yes()));
    assert!(codes(&mut session).is_empty());
    feed(&mut session, &disposition(no()));
    assert_eq!(codes(&mut session), [DISPOSITION]);
    // A client that drains gets what there is and is told that there is no more.
    feed(&mut session, &flow(5, 20, true));
    let drained = codes(&mut session);
    assert_eq!((drained.len(), drained.last()), (8 * 5 + 1, Some(&FLOW)));
}

#[test]
fn credit_is_given_anew_as_requests_are_answered() {
    let mut session = established();
    for id in 0..100 {
        let (events, end) = feed(&mut session, &transfer(1, id, false, &message(2)));
        assert_eq!(end, None);
        let [Event::Message(delivery, _)] = &events[..] else {
            panic!("{events:?}");
        };
        session.settle(delivery, &Outcome::Accepted);
    }
    let flows = codes(&mut session).into_iter().filter(|code| *code == FLOW);
    assert_eq!(flows.count(), 20);
}

#[test]
fn mutated_conversations_are_never_a_panic_and_hold_little() {
    let conversation = [
        BARE.to_vec(),
        open(512),
        begin(),
        attach("a", 0, true, "s/registrations/d"),
        attach("b", 1, false, "s/registrations/d"),
        flow(0, 100, false),
        transfer(1, 0, true, &message(20)),
        transfer(1, 0, false, b""),
        amqp(DETACH, &[uint(0), yes()]),
        amqp(END, &[]),
    ]
    .concat();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = conversation.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = u8::try_from(random(256)).unwrap(),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut session = session();
        let (events, _) = feed(&mut session, &bytes);
        for event in events {
            if let Event::Message(delivery, _) = event {
                session.settle(&delivery, &Outcome::Accepted);
                let _ = session.send(&reply(700));
            }
        }
        assert!(session.take_outgoing().len() < 4096);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_no_link_is_cut_in_time() {
    for said in [vec![], SASL.to_vec(), [BARE, &open(512)].concat()] {
        let (mut client, server) = tokio::io::duplex(4096);
        let limits = Limits::default();
        let mut connection = Connection::new(server, limits, &["PLAIN"], "us".to_owned());
        client.write_all(&said).await.unwrap();
        let began = Instant::now();
        let end = connection.next().await.unwrap_err();
        assert_eq!(end, End::OpenTimeout);
        assert_eq!(began.elapsed(), limits.attach_within);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_wants_to_hear_us_does() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut connection = Connection::new(server, Limits::default(), &[], "us".to_owned());
    let opening = [
        BARE.to_vec(),
        amqp(OPEN, &[text("c"), null(), null(), null(), uint(8000)]),
        begin(),
        attach("a", 0, true, "s"),
    ];
    client.write_all(&opening.concat()).await.unwrap();
    connection.next().await.unwrap();
    connection.session().accept();
    let waiting = timeout(Duration::from_secs(21), connection.next()).await;
    assert!(waiting.is_err(), "nothing happened");
    drop(connection);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    let beat = [0, 0, 0, 8, 2, 0, 0, 0];
    assert!(heard.ends_with(&beat.repeat(5)), "one every four seconds");
    assert!(!heard.ends_with(&beat.repeat(6)));
}
