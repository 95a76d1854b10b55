//! One server, which has all slots.

use redis::{Pipeline, ServerErrorKind};

use super::{
    error::RedisStoreError,
    link::Link,
    request::{Reply, Request, server_error},
    source::field,
    value,
};

/// Checks that a server has all keys and takes writes. If it becomes a replica later, its link looks for the new primary.
pub(super) async fn fits_alone(link: &Link) -> Result<(), RedisStoreError> {
    let mut info = Pipeline::with_capacity(2);
    info.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    let replies = link.send(&info).await?;
    let mut text = String::new();
    for reply in replies {
        let part = redis::from_redis_value::<String>(server_error(link, reply)?);
        text += &part.map_err(|_| value::unexpected("INFO"))?;
    }
    // `server_mode` is the name in Valkey.
    let mode = ["redis_mode", "server_mode"].map(|name| field(&text, name)).concat();
    let what = match (&*mode, field(&text, "role")) {
        ("cluster", _) => "a node of a cluster: its URL begins with redis+cluster:// (or rediss+cluster://)",
        ("sentinel", _) => "a Sentinel: its URL is redis+sentinel://host:port/name, with the name of the primary",
        (_, "slave" | "replica") => "a replica, which takes no writes: name its primary, or the Sentinels that know it",
        _ => return Ok(()),
    };
    Err(RedisStoreError::unfit(link.address(), what))
}

/// Sends requests to the server, and once more those whose script it did not know.
pub(super) async fn send_to_one(link: &Link, mut requests: Vec<Request>) -> Result<Vec<Reply>, RedisStoreError> {
    let send = async |requests: &[Request], commands: &Pipeline| match requests.first() {
        Some(first) => first.send_flight(link, commands).await,
        None => Ok(Vec::new()),
    };
    let mut commands = Pipeline::with_capacity(requests.len());
    for request in &mut requests {
        commands.add_command(request.take_command());
    }
    let replies = send(&requests, &commands).await?.into_iter();
    let mut replies: Vec<_> = replies.map(|reply| server_error(link, reply)).collect();
    let unknown: Vec<_> = (0..replies.len()).filter(|index| is(&replies[*index], ServerErrorKind::NoScript)).collect();
    // They are repeated in order, after the requests that followed them. That is allowed: connections are shared, so requests
    // of other callers may come in between at any time.
    let mut again = Pipeline::with_capacity(unknown.len());
    for index in &unknown {
        requests[*index].spell_out();
        again.add_command(requests[*index].command());
    }
    if !unknown.is_empty() {
        for (index, reply) in unknown.into_iter().zip(send(&requests, &again).await?) {
            replies[index] = server_error(link, reply);
        }
    }
    Ok(replies)
}

/// Whether a reply is an error of this kind.
fn is(reply: &Reply, kind: ServerErrorKind) -> bool {
    let error = reply.as_ref().err().and_then(RedisStoreError::as_redis);
    error.is_some_and(|error| error.kind() == redis::ErrorKind::Server(kind))
}
