//! Completion in a shell, and for kubectl.

use super::people::run;

#[tokio::test]
async fn shells_are_given_a_script() {
    for (shell, word) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef kubectl-rehome"),
        ("fish", "complete -c"),
    ] {
        let said = run(&["completion", shell], "").await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            said.out.contains(word) && said.out.contains("reprovision"),
            "{shell}: {}",
            said.out
        );
    }
}

#[tokio::test]
async fn kubectl_is_answered_in_its_own_form() {
    let words = async |words: &[&str]| {
        let said = run(&[&["__complete"], words].concat(), "").await;
        assert_eq!(said.code, 0, "{said:?}");
        let (candidates, directive) = said.out.trim_end().rsplit_once(':').unwrap();
        assert_eq!(directive, "4", "{said:?}");
        let names = candidates
            .lines()
            .map(|line| line.split_once('\t').unwrap().0.to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(words(&["re"]).await, ["reprovision"]);
    assert_eq!(words(&["__"]).await, [""; 0], "what is hidden stays hidden");
    assert_eq!(words(&["reprovision", "--mo"]).await, ["--mode"]);
    assert_eq!(
        words(&["reprovision", "--mode", ""]).await,
        ["policy", "migrate-data", "reset-data"]
    );
    assert_eq!(words(&["status", "-o", "j"]).await, ["json"]);
    assert!(
        words(&["status", "--"])
            .await
            .contains(&"--kubeconfig".to_owned())
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_not_a_finding() {
    assert_eq!(run(&["status", "--nonsense"], "").await.code, 1);
    assert_eq!(run(&["--help"], "").await.code, 0);
    assert_eq!(
        run(&["--version"], "").await.out,
        format!("kubectl-rehome {}\n", env!("CARGO_PKG_VERSION"))
    );
    let nowhere = run(&["status"], "").await;
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    assert!(
        nowhere.err.contains("give --kubeconfig or set KUBECONFIG"),
        "{nowhere:?}"
    );
}
