//! The binary's own words about its command line: exit status and streams.

#[test]
fn all_faults_are_told_at_once_and_the_status_is_2() {
    let output = assert_cmd::Command::cargo_bin("cotton")
        .unwrap()
        .args(["scheduler", "--port=x", "--spread=y", "--zk_url=zk://"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let flags: Vec<_> = stderr
        .lines()
        .map(|line| line.split(':').nth(1).unwrap().trim())
        .collect();
    assert_eq!(
        flags,
        [
            "--port",
            "--mesos-master",
            "--framework-user",
            "--zk-url",
            "--admin-keypath",
            "--scheduler-keypath",
            "--spread"
        ]
    );
}

#[test]
fn what_the_command_line_itself_refuses_is_one_sentence_too() {
    for (words, sentence) in [
        (
            &["scheduler", "--prot", "1"][..],
            "cotton: unexpected argument '--prot' found; tip: a similar argument exists: '--port'; see --help\n",
        ),
        (
            &["scheduler", "--port"],
            "cotton: a value is required for '--port <PORT>' but none was supplied; see --help\n",
        ),
        (
            &["scheduler", "--port="],
            "cotton: a value is required for '--port <PORT>' but none was supplied; see --help\n",
        ),
        (
            &["scheduler", "--port=1", "--port=2"],
            "cotton: the argument '--port <PORT>' cannot be used multiple times; see --help\n",
        ),
        (
            &["scheduler", "extra"],
            "cotton: unexpected argument 'extra' found; see --help\n",
        ),
        (
            &["shceduler"],
            "cotton: unrecognized subcommand 'shceduler'; tip: a similar subcommand exists: 'scheduler'; see --help\n",
        ),
    ] {
        let output = assert_cmd::Command::cargo_bin("cotton")
            .unwrap()
            .args(words)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            sentence,
            "{words:?}"
        );
    }
}
