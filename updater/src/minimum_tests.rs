use super::*;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn kept(text: &str, number: Option<u64>) -> Option<Kept> {
    Some(Kept { version: version(text), number, rewound: None })
}

fn held(text: &str, number: u64, counter: u64) -> Held {
    Held { counter: Some(counter), record: Some(Record { version: version(text), number }) }
}

#[test]
fn an_earlier_copy_of_the_state_neither_lowers_the_minimum_nor_goes_unnoticed() {
    for (old, had) in [(kept("1.0.0", Some(6)), "1.0.0"), (None, "no least version"), (kept("1.0.0", None), "none")] {
        let now = judge(old, &held("1.2.0", 7, 7), 9).unwrap();
        let rewound = now.rewound.unwrap();
        assert_eq!((now.version, now.number, rewound.at_unix_s), (version("1.2.0"), Some(7), 9));
        assert!(rewound.why.contains(had) && rewound.why.contains("older than 1.2.0"), "{}", rewound.why);
    }
    // Whoever puts back the record, too, is given away by the counter.
    assert!(judge(kept("1.0.0", Some(6)), &held("1.0.0", 6, 7), 9).unwrap().rewound.is_some());
}

#[test]
fn power_cuts_between_file_record_and_counter_are_no_rewinding() {
    let file = kept("1.2.0", Some(7));
    for tpm in [held("1.0.0", 6, 6), held("1.2.0", 7, 6), held("1.2.0", 7, 7)] {
        assert_eq!(judge(file.clone(), &tpm, 9), file);
        let (after, record) = plan(file.as_ref(), &tpm, tpm.counter.unwrap(), &version("1.2.0"));
        assert_eq!(Some(after), file, "the same number again, so that it can be repeated");
        assert_eq!(record.is_none(), tpm.counter == Some(7));
    }
}

#[test]
fn a_tpm_that_was_cleared_or_filled_later_leaves_the_file_to_say() {
    let file = kept("1.2.0", Some(7));
    assert_eq!(judge(file.clone(), &Held::default(), 9), file);
    assert_eq!(judge(file.clone(), &Held { counter: Some(9), record: None }, 9), file);
    let (after, record) = plan(file.as_ref(), &Held { counter: Some(9), record: None }, 9, &version("1.2.0"));
    assert_eq!((after.number, record.unwrap().number), (Some(10), 10));
}

#[test]
fn a_release_that_proves_itself_ends_what_is_said_of_a_rewinding() {
    let rewound = judge(None, &held("1.2.0", 7, 7), 9);
    let (after, record) = plan(rewound.as_ref(), &held("1.2.0", 7, 7), 7, &version("1.2.0"));
    assert!(after.rewound.is_some() && record.is_none(), "the same release again says nothing new");
    let (after, record) = plan(rewound.as_ref(), &held("1.2.0", 7, 7), 7, &version("1.3.0"));
    assert!(after.rewound.is_none());
    assert_eq!(record, Some(Record { version: version("1.3.0"), number: 8 }));
}
