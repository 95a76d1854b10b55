//! Real clients: Chromium's `EventSource`, npm's `eventsource`, and a polyfill. They reconnect after a body that breaks
//! off, and get exactly the rest (guarantee G12). OpenAI's SDK does not reconnect, and must not take a part for the
//! whole.

mod openai;
mod programs;
mod service;

use std::path::Path;

use self::{
    programs::{Program, chromium, node},
    service::{PATHS, Service, Stops},
};

/// The whole life of two streams, for a client that knows only the URLs. The node of one stream drains in its middle,
/// and the other stream cannot be served at first.
async fn survives(stops: Stops, start: impl FnOnce(&Service) -> Program) {
    let mut service = Service::start().await;
    let program = start(&service);
    service.cut_the_first_stream().await;
    let report = service.report().await;
    drop(program);
    service.judge(&report, stops);
}

/// Returns a folder that Cargo keeps for these tests.
fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_chromium_comes_again_after_a_broken_body() {
    survives(Stops::At204, |service| chromium(&service.url("/page"), &folder("chromium"))).await;
}

/// A client from npm, by its package's name.
async fn from_npm(name: &str, stops: Stops) {
    survives(stops, |service| {
        let arguments = [&[name.to_owned(), service.url("")][..], &PATHS.map(str::to_owned)].concat();
        node(&folder(name), "node.mjs", &arguments)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_npm_s_eventsource_comes_again_after_a_broken_body() {
    from_npm("eventsource", Stops::At204).await;
}

/// The polyfill sends its cursor in the query.
#[tokio::test(flavor = "multi_thread")]
async fn g12_a_polyfill_comes_again_after_a_broken_body() {
    from_npm("event-source-polyfill", Stops::AtTheEnd).await;
}
