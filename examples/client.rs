//! Follows an event stream to its end, across lost connections. Start a server with `cargo run --example server`, then
//! `cargo run --example client --features client -- http://127.0.0.1:3000/api/stream/42`. Then restart either of them.
//!
//! The example server identifies an answer by its URL, so a second run with the same URL gets the same answer. To get
//! only the events after a cursor, give the last id that the first run saw: `-- URL ID`.

use std::{error::Error, io::Write as _};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use resilient_sse::client::{EventSource, Update};
use serde::Deserialize;

/// An event of the example server.
#[derive(Deserialize)]
struct Token {
    data: Text,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the first argument is the URL of an event stream")?;
    let cursor = arguments.next().unwrap_or_default();

    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(url).body(Full::<Bytes>::default())?;
    let mut source = EventSource::builder(client, request).last_event_id(cursor).build();
    while let Some(update) = source.next().await {
        match update? {
            Update::Connected(connected) => eprintln!("connected to {:?}", connected.stream_id()),
            Update::Event(event) => {
                print!("{}", event.json::<Token>()?.data.text);
                std::io::stdout().flush()?;
            }
            Update::Gap(gap) => eprintln!("\nevents are lost: {gap:?}"),
            Update::Restart(_) => eprintln!("\nthe answer begins anew"),
            Update::Cut(cut) => eprintln!("\n{}; trying again in {:.1?}", cut.cause, cut.retry_in),
            Update::Ended(ended) => println!("\n{:?}", ended.state),
            _ => {}
        }
    }
    Ok(())
}
