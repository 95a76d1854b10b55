//! The owner of a source may close it, cut a wait short, and start it again after it gave up.

use std::time::Duration;

use futures_core::{FusedStream as _, Stream};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_closed_source_yields_nothing_more() {
    let server = Server::with([Answer::events(["id: 1\ndata: a\n\nid: 2\ndata: b\n\n"]).then(Part::Hang)]);
    let mut source = server.get().build();
    assert_eq!(source.state(), State::Connecting);
    assert_eq!(words(&source.next().await.unwrap()), "connected");
    assert_eq!(words(&source.next().await.unwrap()), "a");
    assert_eq!(source.state(), State::Open);
    source.close();
    source.reconnect();
    assert!(source.next().await.is_none() && source.is_terminated());
    assert_eq!((source.state(), source.last_event_id()), (State::Closed, "1"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_can_be_cut_short() {
    let server = Server::with([Answer::status(503).header("retry-after", "600"), Answer::status(204)]);
    let mut source = server.get().build();
    let began = Instant::now();
    let Some(Ok(Update::Cut(cut))) = source.next().await else { panic!("503 is tried again") };
    assert!(cut.retry_in >= Duration::from_secs(600) && cut.attempts == 1);
    assert!(timeout(Duration::from_secs(1), source.next()).await.is_err());
    assert_eq!(source.state(), State::Waiting);
    source.reconnect();
    assert_eq!(words(&source.next().await.unwrap()), "ended: -");
    assert!(began.elapsed() < Duration::from_secs(2));
    // After the end neither call has an effect.
    source.reconnect();
    source.close();
    assert_eq!((source.next().await.is_none(), source.state()), (true, State::Ended));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_gave_up_can_begin_anew() {
    let server = Server::with([Answer::Unreachable, Answer::Unreachable, Answer::status(204)]);
    let mut source = server.get().max_attempts(2).build();
    assert_eq!(all(&mut source).await.len(), 2);
    assert_eq!((source.state(), source.attempts()), (State::GaveUp, 2));
    source.reconnect();
    assert_eq!((source.state(), source.attempts()), (State::Connecting, 0));
    assert_eq!(all(&mut source).await, ["ended: -"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_a_stream_that_can_be_sent_to_a_task() {
    fn is_stream<T: Stream<Item = Result<Update, GaveUp>> + Send + Unpin + 'static>(stream: T) -> T {
        stream
    }
    let server = Server::with([Answer::events(["event: completed\ndata: a\n\n"])]);
    let source = is_stream(server.get().build());
    let told = tokio::spawn(async { StreamExt::map(source, |update| words(&update)).collect::<Vec<_>>().await }).await;
    assert_eq!(told.unwrap(), ["connected", "ended: a"]);
}

#[test]
fn errors_keep_their_cause() {
    use std::error::Error as _;
    let last = CutCause::Request("no route".into());
    let gave_up = GaveUp::Attempts { attempts: 10, last };
    assert_eq!(gave_up.source().unwrap().source().unwrap().to_string(), "no route");
    assert_eq!(GaveUp::Attempts { attempts: 1, last: CutCause::EndedEarly }.to_string(), "an attempt brought no event");
}
