//! The [`Store`] trait.

use std::{future::Future, time::Duration};

use super::{error::RedisStoreError, keys, shared::RedisStore};
use crate::{
    model::{
        id::{NodeId, StreamId, StreamKey},
        stream::StreamInfo,
    },
    store::{
        Append, Appended, Beat, Beaten, Close, Closed, Due, Interrupt, Interrupted, List, Listed, Notices, Open,
        Opened, Page, Point, Pointed, Pointer, Publish, Published, Read, Renew, Renewed, Reopen, Reopened, Store, Tail,
    },
};

macro_rules! delegate {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> impl Future<Output = Result<$out, RedisStoreError>> + Send {
            self.0.$name($($arg),*)
        })*
    };
}

impl Store for RedisStore {
    type Error = RedisStoreError;

    delegate! {
        open(open: Open) -> Opened;
        withdraw(key: StreamKey, token: u128) -> ();
        append(appends: Vec<Append>) -> Vec<Appended>;
        close(close: Close) -> Closed;
        close_all(closes: Vec<Close>) -> Vec<Option<Closed>>;
        interrupt(interrupt: Interrupt) -> Interrupted;
        reopen(reopen: Reopen) -> Reopened;
        publish(publish: Publish) -> Published;
        read(read: Read) -> Option<Page>;
        info(key: StreamKey) -> Option<StreamInfo>;
        list(list: List) -> Listed;
        active_count() -> u64;
        delete(key: StreamKey) -> ();
        beat(beat: Beat) -> Beaten;
        due(limit: usize, lease: Duration, claim: Option<u64>) -> Vec<Due>;
        stale(threshold: Duration, limit: usize) -> Vec<StreamInfo>;
        hook_done(key: StreamKey) -> ();
        pointer(conversation: StreamKey) -> Option<Pointer>;
        point(point: Point) -> Pointed;
        unpoint(conversation: StreamKey, stream: StreamId, epoch: Option<u64>) -> Option<Pointer>;
        give_way(conversation: StreamKey, streams: Vec<StreamId>) -> ();
        renew(renewals: Vec<Renew>) -> Vec<Renewed>;
        announce(key: StreamKey) -> ();
    }

    fn part(&self, key: &StreamKey) -> u64 {
        if self.0.cluster { self.0.fleet.part(self.0.keys.slot(&keys::name_of(key))) } else { 0 }
    }

    fn parts(&self) -> usize {
        self.0.fleet.parts()
    }

    fn tail(&self, key: &StreamKey) -> Tail {
        self.0.tails.tail(key)
    }

    fn is_followed(&self, key: &StreamKey) -> bool {
        self.0.tails.is_followed(&keys::name_of(key))
    }

    fn followed(&self) -> Option<Vec<StreamKey>> {
        Some(self.0.tails.followed())
    }

    fn notices(&self, node: &NodeId) -> Notices {
        self.0.tails.notices(node)
    }
}
