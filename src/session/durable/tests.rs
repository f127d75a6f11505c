use super::*;
use proptest::prelude::*;

const WILL: Will<'static> = Will {
    qos: Qos::ExactlyOnce,
    retain: true,
    delay: 7,
    expiry: Some(9),
    topic: "w/x",
    forward: b"fw",
    payload: b"gone",
};

fn subscription(filter: &str, qos: u8, id: Option<u32>) -> Subscription<'_> {
    Subscription {
        filter,
        options: SubOptions {
            qos,
            no_local: id.is_some(),
            retain_as_published: id.is_none(),
        },
        id,
    }
}

fn core() -> Core<'static> {
    Core {
        client_id: "phone-1",
        ended: true,
        expiry: 0,
        ends: Some(1_800_000_000_000),
        unsent: Some(77),
        will: Some(WILL),
        will_due: Some(1_700_000_000_000),
        incoming: vec![(1, None), (65_535, Some(u64::MAX))],
        had: vec![
            Had {
                token: 5,
                group: None,
            },
            Had {
                token: u64::MAX,
                group: Some(("g", "a/#")),
            },
        ],
    }
}

fn state(core: &Core<'_>, subscriptions: &[Subscription<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    write_core(&mut out, core);
    for subscription in subscriptions {
        put_subscription(&mut out, subscription);
    }
    out
}

fn note(note: &Note<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    note.write(&mut out);
    out
}

#[test]
fn a_state_comes_back() {
    let subs = [
        subscription("a/+", 1, None),
        subscription("$share/g/a/#", 2, Some(268_435_455)),
    ];
    let bytes = state(&core(), &subs);
    assert_eq!(read_core(&bytes, &[]), Ok(core()));
    assert_eq!(read_subscriptions(&bytes, &[]), Ok(subs.to_vec()));
    let online = Core {
        expiry: 3600,
        ..Core::default()
    };
    assert_eq!(read_core(&state(&online, &[]), &[]), Ok(online));
}

#[test]
fn notes_change_the_core_in_order() {
    let bytes = state(&core(), &[]);
    let online = note(&Note::Online {
        expiry: 10,
        will: None,
    });
    let with_will = note(&Note::Online {
        expiry: 10,
        will: Some(WILL),
    });
    let offline = |will_due| {
        note(&Note::Offline {
            ends: 5,
            unsent: 8,
            will_due,
        })
    };
    let after = read_core(&bytes, &[&online]).unwrap();
    assert_eq!(
        (after.expiry, after.ends, after.unsent, after.will_due),
        (10, None, None, None)
    );
    assert_eq!(after.will, None);
    let waits = offline(Some(3));
    let after = read_core(&bytes, &[&online, &with_will, &waits]).unwrap();
    assert_eq!(
        (after.ends, after.unsent, after.will, after.will_due),
        (Some(5), Some(8), Some(WILL), Some(3))
    );
    let published = note(&Note::WillPublished);
    let gone = [&with_will[..], &waits, &published];
    assert_eq!(read_core(&bytes, &gone).unwrap().will, None);
    let done = offline(None);
    assert_eq!(read_core(&bytes, &[&with_will, &done]).unwrap().will, None);
}

#[test]
fn a_message_of_the_client_is_in_doubt_until_it_is_held() {
    let bytes = state(&Core::default(), &[]);
    let took = note(&Note::Took { id: 3, token: 42 });
    let again = note(&Note::Took { id: 3, token: 43 });
    let held = note(&Note::Held { id: 3 });
    let freed = note(&Note::Freed { id: 3 });
    let incoming = |notes: &[&[u8]]| read_core(&bytes, notes).unwrap().incoming.clone();
    assert_eq!(incoming(&[&took]), [(3, Some(42))]);
    assert_eq!(incoming(&[&took, &again]), [(3, Some(43))]);
    assert_eq!(incoming(&[&took, &held]), [(3, None)]);
    assert_eq!(
        incoming(&[&held]),
        [(3, None)],
        "the note before it may be lost"
    );
    assert_eq!(incoming(&[&took, &held, &freed]), []);
}

#[test]
fn subscriptions_are_replaced_and_ended_by_their_filter() {
    let first = [subscription("a", 0, None), subscription("b", 1, Some(1))];
    let bytes = state(&core(), &first);
    let mut more = Vec::new();
    begin_subscribed(&mut more);
    put_subscription(&mut more, &subscription("a", 2, Some(9)));
    put_subscription(&mut more, &subscription("c", 1, None));
    let mut less = Vec::new();
    begin_unsubscribed(&mut less);
    put_filter(&mut less, "b");
    put_filter(&mut less, "never");
    let other = note(&Note::WillPublished);
    let left = read_subscriptions(&bytes, &[&more, &other, &less]);
    let expected = vec![subscription("a", 2, Some(9)), subscription("c", 1, None)];
    assert_eq!(left, Ok(expected));
    assert!(read_core(&bytes, &[&more, &less]).is_ok());
}

#[test]
fn a_small_message_has_four_bytes_before_its_topic() {
    let body = Body {
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        since: None,
        token: None,
        topic: "t",
        forward: b"",
        payload: b"p",
    };
    assert_eq!(body.head().bytes().len(), 4);
    let whole = body.pieces(&body.head()).concat();
    assert_eq!(Body::read(&whole), Ok(body));
    let mut newer = whole;
    newer[0] += 1;
    assert_eq!(Body::read(&newer), Err(Unreadable));
}

fn every_record() -> Vec<Vec<u8>> {
    let mut all = vec![state(&core(), &[subscription("a/b", 1, Some(3))])];
    let mut meta = Vec::new();
    Meta::write(&mut meta, 3, &[1, 2], Some(("g", "a/#")));
    all.push(meta);
    let mut subscribed = Vec::new();
    begin_subscribed(&mut subscribed);
    put_subscription(&mut subscribed, &subscription("x", 2, Some(1)));
    all.push(subscribed);
    let online = Note::Online {
        expiry: 1,
        will: Some(WILL),
    };
    all.push(note(&online));
    all.push(note(&Note::Took { id: 1, token: 2 }));
    all
}

fn read_all(bytes: &[u8]) {
    let valid = state(&core(), &[]);
    let _ = read_core(bytes, &[]);
    let _ = read_subscriptions(bytes, &[]);
    let _ = read_core(&valid, &[bytes]);
    let _ = read_subscriptions(&valid, &[bytes]);
    let _ = Meta::read(bytes);
    let _ = Body::read(bytes);
}

#[test]
fn a_record_that_is_cut_is_unreadable_or_another_one_and_never_panics() {
    for record in every_record() {
        for len in 0..record.len() {
            read_all(&record[..len]);
            assert_eq!(read_core(&record[..len.min(9)], &[]), Err(Unreadable));
        }
    }
}

proptest! {
    #[test]
    fn a_body_comes_back(
        qos in 0u8..3,
        retain: bool,
        expires: Option<u64>,
        since: Option<u32>,
        token: Option<u64>,
        topic in "[a-z/\u{e9}]{0,40}",
        forward: Vec<u8>,
        payload: Vec<u8>,
    ) {
        let body = Body {
            qos: Qos::from_bits(qos).unwrap(),
            retain,
            expires,
            since,
            token,
            topic: &topic,
            forward: &forward,
            payload: &payload,
        };
        let bytes = body.pieces(&body.head()).concat();
        prop_assert_eq!(Body::read(&bytes), Ok(body));
        prop_assert_eq!(Body::token_of(&bytes), token);
    }

    #[test]
    fn a_meta_comes_back(twice: bool, retain: bool, ids: Vec<u32>, group: Option<(String, String)>) {
        let qos = if twice { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let mut bytes = Vec::new();
        let named = group.as_ref().map(|(name, path)| (&**name, &**path));
        Meta::write(&mut bytes, Meta::tag(qos, retain), &ids, named);
        let meta = Meta::read(&bytes).unwrap();
        prop_assert_eq!((meta.twice, meta.retain, &meta.ids), (twice, retain, &ids));
        let named = group.map(|(name, path)| (name.into(), path.into()));
        prop_assert_eq!(meta.group, named);
    }

    #[test]
    fn whatever_is_read_does_not_panic(bytes: Vec<u8>, record in 0usize..5, at: usize, with: u8) {
        read_all(&bytes);
        let mut record = every_record().swap_remove(record);
        let at = at % record.len();
        record[at] = with;
        read_all(&record);
    }
}

#[test]
fn a_meta_is_never_too_long_for_the_store() {
    // `$share/g/` and the rest of a filter of 65,535 bytes, with a subscription identifier.
    let path = "x".repeat(usize::from(u16::MAX) - "$share/g/".len());
    let many = vec![7; 70_000];
    for (ids, group) in [
        (&[7][..], Some(("g", &*path))),
        (&[], Some(("g", &*path))),
        (&many, None),
    ] {
        let mut bytes = Vec::new();
        Meta::write(&mut bytes, Meta::tag(Qos::AtLeastOnce, false), ids, group);
        assert!(u16::try_from(bytes.len()).is_ok(), "{}", bytes.len());
        let meta = Meta::read(&bytes).unwrap();
        assert_eq!(meta.ids, ids[..ids.len().min(16_000)]);
        assert_eq!(meta.group.is_some(), ids.is_empty());
    }
}
