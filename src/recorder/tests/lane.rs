//! What a lane knows of its stream.

use std::sync::Arc;

use super::open;
use crate::{KeptHeaders, Origin, recorder::Lane, store::Open};

/// A cursor names its stream, and must not open a stream that its route would not make.
#[test]
fn g9_a_generated_id_opens_only_a_generated_stream_of_its_kind() {
    let is_meant = |held: (Origin, &'static str), asked: (Origin, &str)| {
        let registration = Open { origin: held.0, kind: held.1.into(), ..open("a") };
        let retention = Arc::new(registration.retention);
        Lane::new(registration, &retention, 1, None).is_meant_by(asked.0, asked.1)
    };
    assert!(is_meant((Origin::Generated, "chat"), (Origin::Generated, "chat")));
    assert!(!is_meant((Origin::Generated, "chat"), (Origin::Generated, "export")));
    assert!(!is_meant((Origin::Named, "chat"), (Origin::Generated, "chat")));
    assert!(!is_meant((Origin::Named, "chat"), (Origin::Generated, "export")));
    assert!(
        is_meant((Origin::Named, "chat"), (Origin::Named, "export")),
        "the store compares the kinds of named streams"
    );
}

#[test]
fn a_lane_knows_whether_its_stream_is_read_on_another_node() {
    let lane = super::lane("a", 1, 1, 1);
    assert!(!lane.was_read_elsewhere());
    assert_eq!((lane.is_read_elsewhere(true, false), lane.was_read_elsewhere()), ((false, true), true));
    assert_eq!((lane.is_read_elsewhere(false, false), lane.was_read_elsewhere()), ((true, false), false));
}

#[test]
fn headers_are_awaited_only_on_routes_that_keep_them() {
    let headers_of = |headers: KeptHeaders| {
        let registration = Open { headers, ..open("a") };
        let retention = Arc::new(registration.retention);
        Lane::new(registration, &retention, 1, None).headers().clone()
    };
    let kept = KeptHeaders::Kept(vec![("x-a".to_owned(), "1".to_owned())]);
    for headers in [KeptHeaders::None, KeptHeaders::Awaited, kept] {
        assert_eq!(headers_of(headers.clone()), headers);
    }
}
