use super::*;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn boot(id: &str, of: &str) -> Boot {
    Boot {
        number: 0,
        boot_id: id.into(),
        started_unix_s: 1000,
        clock_known: true,
        version: version(of),
        slot: "a".into(),
        trial: None,
        ran_ms: 5,
        end: None,
    }
}

fn now(boot: Boot) -> Now<'static> {
    Now { boot, words: None, panic: None, watchdog: false, tried: None, demoted: None }
}

fn words(id: &str, how: &str) -> Option<LastWords> {
    let reason = "asked for over the API".into();
    let (by, how) = ("runtime".into(), how.into());
    Some(LastWords { boot_id: id.into(), how, by, reason, ran_ms: 90_000, ..LastWords::default() })
}

/// Version and cause of each, newest first.
fn told(records: &[Record]) -> Vec<(u64, String, Option<EndCause>)> {
    let line = |record: &Record| {
        let boot = &record.boot;
        (boot.number, boot.version.to_string(), boot.end.as_ref().map(|end| end.cause))
    };
    records.iter().map(line).collect()
}

fn row(number: u64, version: &str, cause: Option<EndCause>) -> (u64, String, Option<EndCause>) {
    (number, version.into(), cause)
}

#[test]
fn an_asked_restart_is_told_with_who_asked_and_how_long_it_ran() {
    let records = begin(Vec::new(), &now(boot("a", "1.0.0")));
    let records = begin(records, &Now { words: words("a", "reboot"), ..now(boot("b", "1.0.0")) });
    assert_eq!(told(&records), [row(2, "1.0.0", None), row(1, "1.0.0", Some(EndCause::Reboot))]);
    let before = &records[1].boot;
    let end = before.end.as_ref().unwrap();
    assert_eq!((end.by.as_str(), end.reason.as_str(), before.ran_ms), ("runtime", "asked for over the API", 90_000));
    let records = begin(records, &Now { words: words("b", "poweroff"), ..now(boot("c", "1.0.0")) });
    assert_eq!(told(&records)[1], row(2, "1.0.0", Some(EndCause::Poweroff)));
}

#[test]
fn a_restart_of_the_updater_begins_no_boot() {
    let records = begin(Vec::new(), &now(boot("a", "1.0.0")));
    let again = begin(records.clone(), &Now { watchdog: true, ..now(boot("a", "1.0.0")) });
    assert_eq!(again, records);
}

#[test]
fn panic_watchdog_and_power_cut_are_told_apart() {
    let first = begin(Vec::new(), &now(boot("a", "1.0.0")));
    let cause = |change: &dyn Fn(&mut Now)| {
        let mut next = now(boot("b", "1.0.0"));
        change(&mut next);
        begin(first.clone(), &next)[1].boot.end.clone().unwrap()
    };
    assert_eq!(cause(&|_| ()).cause, EndCause::Unknown);
    assert_eq!(cause(&|now| now.watchdog = true).cause, EndCause::Watchdog);
    let panic = cause(&|now| (now.watchdog, now.panic) = (true, Some("rot".into())));
    assert_eq!((panic.cause, panic.reason.as_str()), (EndCause::Panic, "rot"));
}

#[test]
fn an_update_its_failed_trials_and_the_fallback_are_told() {
    let two = version("2.0.0");
    let on_trial = |id: &str, attempt| Boot { trial: Some(trial(3 - attempt, attempt)), ..boot(id, "2.0.0") };
    let records = begin(Vec::new(), &now(boot("a", "1.0.0")));
    let tried = |count| Some((&two, count));
    let first = Now { words: words("a", "reboot"), tried: tried(1), ..now(on_trial("b", 1)) };
    let mut records = begin(records, &first);
    assert_eq!(told(&records)[1], row(1, "1.0.0", Some(EndCause::Update)));
    // The gate gave up on the first try, the backstop of PID 1 on the second, the third left nothing at all.
    let gate = records[0].boot.trial.as_mut().unwrap();
    (gate.outcome, gate.reason) = (TrialOutcome::Failed, "container web not up".into());
    let mut records = begin(records, &Now { words: words("b", "reboot"), tried: tried(2), ..now(on_trial("c", 2)) });
    assert_eq!(records[1].boot.end.as_ref().unwrap().reason, "container web not up");
    records[0].boot.ran_ms = 7;
    let expired = words("c", "reboot").map(|words| LastWords { trial_expired: true, ..words });
    let records = begin(records, &Now { words: expired, tried: tried(3), ..now(boot("d", "1.0.0")) });
    let wanted = [
        row(5, "1.0.0", None),
        row(4, "2.0.0", Some(EndCause::Unknown)),
        row(3, "2.0.0", Some(EndCause::TrialFailed)),
        row(2, "2.0.0", Some(EndCause::TrialFailed)),
        row(1, "1.0.0", Some(EndCause::Update)),
    ];
    assert_eq!(told(&records), wanted);
}

#[test]
fn a_boot_that_never_got_to_the_updater_is_put_in() {
    let records = begin(Vec::new(), &now(boot("a", "1.0.0")));
    // a ended in order; then one panicked at once.
    let next = Now { words: words("a", "reboot"), panic: Some("oops".into()), ..now(boot("c", "1.0.0")) };
    assert_eq!(told(&begin(records.clone(), &next))[1], row(2, "1.0.0", Some(EndCause::Panic)));
    // a ended without a word; then one that ended in order.
    let records = begin(records, &Now { words: words("b", "reboot"), ..now(boot("c", "1.0.0")) });
    let wanted =
        [row(3, "1.0.0", None), row(2, "1.0.0", Some(EndCause::Reboot)), row(1, "1.0.0", Some(EndCause::Unknown))];
    assert_eq!(told(&records), wanted);
    assert_eq!(records[1].boot.boot_id, "b");
}

#[test]
fn a_rollback_is_no_update() {
    let records = begin(Vec::new(), &now(boot("a", "2.0.0")));
    let two = version("2.0.0");
    let next = Now { words: words("a", "reboot"), demoted: Some(&two), ..now(boot("b", "1.0.0")) };
    assert_eq!(told(&begin(records, &next))[1], row(1, "2.0.0", Some(EndCause::Rollback)));
}

#[test]
fn the_history_is_bounded() {
    let mut records = Vec::new();
    for number in 0..3 * MAX_BOOTS {
        records = begin(records, &now(boot(&number.to_string(), "1.0.0")));
    }
    assert_eq!((records.len(), records[0].boot.number), (MAX_BOOTS, 3 * MAX_BOOTS as u64));
}
