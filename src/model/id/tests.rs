use super::*;

#[test]
fn stream_ids_keep_to_their_rule() {
    assert!(StreamId::new("Az09._~-").is_ok());
    assert_eq!(StreamId::new(""), Err(InvalidStreamId::Empty));
    assert!(StreamId::new("a".repeat(128)).is_ok());
    assert_eq!(StreamId::new("a".repeat(129)), Err(InvalidStreamId::TooLong { length: 129 }));
    assert_eq!(StreamId::new("ab\r\nX: y"), Err(InvalidStreamId::Character { position: 2 }));
    assert_eq!(StreamId::new("é"), Err(InvalidStreamId::Character { position: 0 }));
}

#[test]
fn random_ids_are_version_4_uuids_with_122_random_bits() {
    let text = StreamId::from_random(u128::MAX).to_string();
    assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(StreamId::from_random(0).to_string(), "00000000-0000-4000-8000-000000000000");
    assert_ne!(StreamId::random(), StreamId::random());
    assert!(StreamId::random().is_made_up());
    for other in [
        "chat-42",
        "00000000-0000-1000-8000-000000000000",
        "00000000-0000-4000-c000-000000000000",
        "00000000-0000-4000-8000-00000000000A",
        "00000000-0000-4000-8000-0000000000000",
    ] {
        assert!(!StreamId::new(other).expect("valid").is_made_up(), "{other}");
    }
}

#[test]
fn stream_ids_are_deserialised_by_their_rule() {
    let stored = (StreamId::new("a~b").expect("valid"), EventId::new(7, 3));
    let text = serde_json::to_string(&stored).expect("it serializes");
    assert_eq!(text, r#"["a~b","e7-3"]"#);
    assert_eq!(serde_json::from_str::<(StreamId, EventId)>(&text).expect("it reads back"), stored);
    assert_eq!(serde_json::from_str::<StreamId>(r#""a~b""#).expect("valid").as_str(), "a~b");
    assert_eq!(serde_json::from_str::<StreamId>(r#""a~b""#).expect("valid").as_str(), "a~b");
    let refused = serde_json::from_str::<StreamId>(r#""a/b""#).expect_err("a slash").to_string();
    assert!(refused.contains("[A-Za-z0-9._~-]"), "{refused}");
}

#[test]
fn event_ids_have_one_spelling() {
    let mut writer = CursorWriter::new(None);
    let seqs = (0..=12).chain([8, 9, 98, 99, 100, 100, 99, 999, 1000, u64::MAX - 1, u64::MAX, 0]);
    for id in seqs.flat_map(|seq| [EventId::new(1, seq), EventId::new(1, seq), EventId::new(u64::MAX, seq)]) {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(writer.write(id), id.to_string().as_bytes());
    }
    for id in (0..2000).map(|seq| EventId::new(7, seq)) {
        assert_eq!(writer.write(id), id.to_string().as_bytes());
    }
    for bad in [
        "",
        "e",
        "e-",
        "e1",
        "e1-",
        "e-1",
        "e1-2-3",
        "e01-2",
        "e1-02",
        "e+1-2",
        "e1- 2",
        "ee1-2",
        "E1-2",
        "1-2",
        "0-0",
        "e1-18446744073709551616",
    ] {
        assert_eq!(bad.parse::<EventId>(), Err(InvalidEventId), "{bad:?}");
    }
}

#[test]
fn the_longest_id_is_as_long_as_its_writer_says() {
    for stream in [None, Some(StreamId::new("a".repeat(128)).expect("valid"))] {
        let mut writer = CursorWriter::new(stream);
        assert_eq!(writer.write(EventId::new(u64::MAX, u64::MAX)).len(), writer.max_len());
    }
}

#[cfg(feature = "redis")]
#[test]
fn event_ids_have_the_form_of_redis() {
    assert_eq!(EventId::new(7, 8).to_pair(), "7-8");
    assert_eq!(EventId::from_pair("7-8"), Some(EventId::new(7, 8)));
}

#[test]
fn a_node_keeps_its_name() {
    assert_eq!(NodeId::new("node-1").as_str(), "node-1");
}

#[test]
fn a_cursor_names_its_stream_where_the_library_made_it_up() {
    let stream = StreamId::new("a.b").expect("valid");
    let mut writer = CursorWriter::new(Some(stream.clone()));
    let wire = str::from_utf8(writer.write(EventId::new(7, 8))).expect("text");
    let cursor = Cursor::parse(wire).expect("readable");
    assert_eq!(cursor, Cursor { stream: Some(stream), at: EventId::new(7, 8) });
    assert_eq!(Cursor::parse("e7-8").expect("readable").stream, None);
    for bad in ["7-8", "a.7-8", ".e7-8", "x y.e7-8", "e7-8.", "e7-8.e"] {
        assert_eq!(Cursor::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn ids_are_read_from_json_and_from_texts_by_their_rules() {
    assert_eq!(StreamId::try_from("a~b").expect("valid").as_str(), "a~b");
    assert_eq!(StreamId::try_from("a/b".to_owned()), Err(InvalidStreamId::Character { position: 1 }));
    assert_eq!(Owner::try_from("ann").expect("valid").name(), Some("ann"));
    assert_eq!("".parse::<Owner>(), Err(InvalidOwner::Empty));
    assert_eq!(EventId::try_from("e7-8"), Ok(EventId::new(7, 8)));
    assert_eq!(EventId::try_from("e7-8".to_owned()), Ok(EventId::new(7, 8)));
    assert_eq!(serde_json::from_str::<Owner>(r#""ann""#).expect("valid").name(), Some("ann"));
    assert!(serde_json::from_str::<Owner>(r#""""#).expect_err("empty").to_string().contains("empty"));
    assert_eq!(serde_json::from_str::<EventId>(r#""e7-8""#).expect("valid"), EventId::new(7, 8));
    assert!(serde_json::from_str::<EventId>(r#""7-8""#).is_err());
}
