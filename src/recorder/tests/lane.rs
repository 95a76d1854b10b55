//! What a lane knows of its stream.

use std::sync::Arc;

use super::{frame, hub, open};
use crate::{
    MemoryStore, Origin,
    recorder::{Inner, Lane},
    store::Open,
    test_util::FaultStore,
};

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
    assert!(is_meant((Origin::Named, "chat"), (Origin::Named, "export")), "the store compares the kinds of named streams");
}
