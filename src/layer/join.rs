//! Joins a request to a stream that another request produces, or has produced.

use std::sync::Arc;

use tokio::time::Instant;

use super::{admit::Admission, asked::Asked};
use crate::{
    follow::{FollowBody, FollowRequest, Unknown},
    model::{kept::KeptHeaders, stream::Ended},
    node::{Node, readers::BEGIN_WAIT},
    protocol::replay::Owed,
    route::settings::Route,
    telemetry::add,
};

impl Admission {
    pub(super) async fn active(node: &Arc<Node>, route: &Route, asked: Asked) -> Self {
        if asked.position.is_end()
            && let Ok(Some(info)) = node.store.info(asked.key.clone()).await
            && asked.position.has_all_of(&info, |ending| route.voice.announces(ending))
        {
            return Self::NoContent;
        }
        Self::follow(node, route, asked, true).await
    }

    pub(super) async fn ended(node: &Arc<Node>, route: &Route, asked: Asked, ended: &Ended) -> Self {
        if asked.position.has_all(ended, route.voice.announces(&ended.ending)) {
            return Self::NoContent;
        }
        Self::follow(node, route, asked, false).await
    }

    /// Follows the stream. `runs` says whether the stream has a producer. The producer learns of the reader before the
    /// response's head is sent.
    pub(super) async fn follow(node: &Arc<Node>, route: &Route, asked: Asked, runs: bool) -> Self {
        if asked.position.is_reconnect() {
            add(&node.telemetry.resumed, 1);
        }
        let manner = asked.manner(route);
        let Asked { key, position, prefix, opened, .. } = asked;
        let owed = if route.endless { Owed::Nothing } else { Owed::Run };
        let lane = node.recorder.lane(&key);
        let unknown = if lane.is_none() { Unknown::Response } else { Unknown::Nothing };
        let retry = lane.as_ref().and_then(|lane| lane.inner_retry());
        let stream = key.clone();
        let request = FollowRequest { key, position, owed, manner, prefix, retry, wait: None, unknown, until: None };
        let mut body = Box::new(FollowBody::new(node, request));
        body.begin().await;
        if runs {
            node.announce(&stream).await;
        }
        let headers = match lane {
            Some(lane) => lane.headers().clone(),
            None => body.begun().await,
        };
        // The 2 s include an `EventSource`'s wait for the producer. Other clients have waited until the producer
        // answered.
        let waits_since = if manner.comes_again { opened } else { Instant::now() };
        let headers = match headers {
            KeptHeaders::Awaited if route.keep_headers.is_empty() => KeptHeaders::None,
            headers => node.await_headers(&stream, headers, waits_since + BEGIN_WAIT).await,
        };
        Self::Follow(body, headers)
    }
}
