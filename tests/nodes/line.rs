//! A connection that is reused, like a proxy's, so that many streams need few ports.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::SendRequest,
};
use tokio::time::timeout;

use crate::support::example::{PATIENCE, connect};

pub struct Line {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub fn to(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// Sends a request over the last connection, or over a new one if that is broken. Returns `None` if nobody answers.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Option<Response<Incoming>> {
        let path = request.uri().clone();
        let answer = async {
            let kept = match self.sender.take() {
                Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
                None => None,
            };
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(self.address).await.ok()?,
            };
            let answer = sender.send_request(request).await.ok()?;
            self.sender = Some(sender);
            Some(answer)
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("no answer in time: {path}"))
    }

    /// Reads a response to its end. Returns its status.
    pub async fn status(&mut self, request: Request<Full<Bytes>>) -> Option<http::StatusCode> {
        let response = self.ask(request).await?;
        let status = response.status();
        timeout(PATIENCE, response.into_body().collect()).await.expect("an end in time").ok()?;
        Some(status)
    }
}
