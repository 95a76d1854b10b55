//! Starts the servers under test, each in a process of its own: this program with the argument `child`.

use std::{
    collections::HashMap,
    env,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{self, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, Request},
    http::header,
    middleware::Next,
    response::{
        IntoResponse as _, Response,
        sse::{KeepAlive, Sse},
    },
    routing::get,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use resilient_sse::{Builder, Durability, MemoryStore, RedisStore, ResilientSse, StreamId};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    Result,
    floor::Twice,
    proc, rows,
    source::{Pace, Source},
};

/// The code behind a server's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// axum's `Sse` and `KeepAlive`, without the layer.
    Plain,
    Memory,
    Buffered,
    BeforeSend,
    /// The least that recording to Redis can cost, without the layer: see [`floor`](crate::floor).
    Floor,
    /// Plain axum, which waits for a PING to Redis before each answer: a round trip as a server makes it.
    Trip,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Memory, Self::Buffered, Self::BeforeSend];

    /// Whether the variant uses the library.
    pub(crate) fn has_layer(self) -> bool {
        !matches!(self, Self::Plain | Self::Floor | Self::Trip)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Memory => "memory",
            Self::Buffered => "Redis, Buffered",
            Self::BeforeSend => "Redis, BeforeSend",
            Self::Floor => "floor",
            Self::Trip => "trip",
        }
    }
}

/// A server's process. Dropping it kills the process.
pub(crate) struct Child {
    process: process::Child,
    pub(crate) address: SocketAddr,
    pub(crate) variant: Variant,
}

impl Child {
    /// Starts a server. `settings` are those of [`set`].
    pub(crate) fn start(variant: Variant, redis: &str, settings: &[(&str, String)]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["child", "serve", variant.name(), redis]);
        command.args(settings.iter().map(|(name, value)| format!("{name}={value}")));
        // The child ends when its standard input closes, even if this process is killed.
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("the server of {} did not start", variant.name()))?;
        Ok(Self { process, address, variant })
    }

    pub(crate) fn cpu(&self) -> Result<f64> {
        proc::cpu(self.process.id())
    }

    pub(crate) fn resident(&self) -> Result<f64> {
        proc::resident(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs this program as a child.
pub(crate) fn run(args: Vec<String>) -> Result<()> {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("serve") => {
            let name = args.next().ok_or("which variant?")?;
            let variant = Variant::ALL
                .into_iter()
                .chain([Variant::Floor, Variant::Trip])
                .find(|variant| variant.name() == name)
                .ok_or("no such variant")?;
            let redis = args.next().ok_or("which Redis?")?;
            let settings =
                args.filter_map(|arg| arg.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
            tokio::runtime::Runtime::new()?.block_on(serve(variant, &redis, &settings.collect()))
        }
        Some("idle") => rows::idle::child(&args.collect::<Vec<_>>()),
        _ => Err("an unknown child".into()),
    }
}

/// Applies a row's settings: `window` and `sweep` in seconds, `max_events`, `max_bytes`.
fn set(mut builder: Builder, settings: &HashMap<String, String>) -> Result<Builder> {
    for (name, value) in settings {
        let seconds = || value.parse().map(Duration::from_secs_f64);
        builder = match &**name {
            "window" => builder.recovery_window(seconds()?),
            "sweep" => builder.sweep_every(seconds()?),
            "max_events" => builder.max_log_events(value.parse()?),
            "max_bytes" => builder.max_log_bytes(value.parse()?),
            "linger" => builder.linger(seconds()?),
            _ => return Err(format!("there is no setting `{name}`").into()),
        };
    }
    Ok(builder)
}

async fn serve(variant: Variant, redis: &str, settings: &HashMap<String, String>) -> Result<()> {
    let (open, gate) = watch::channel(0_u64);
    let open = Arc::new(open);
    let streams = Router::new()
        .route("/s/{id}", get(move |id: Path<String>, query: Query<HashMap<String, String>>| answer(id, query, gate)));
    let durability = if variant == Variant::BeforeSend { Durability::BeforeSend } else { Durability::Buffered };
    let builder = match variant {
        Variant::Plain | Variant::Floor | Variant::Trip | Variant::Memory => ResilientSse::builder(MemoryStore::new()),
        Variant::Buffered | Variant::BeforeSend => {
            // Both variants use the same Redis and the same stream names, so each needs a prefix of its own.
            let store = RedisStore::builder(redis)?.key_prefix(format!("{variant:?}:"));
            ResilientSse::builder(store.connect().await?)
        }
    };
    let (sse, guardian) = set(builder.anonymous().durability(durability), settings)?.build()?;
    let streams = match variant {
        Variant::Plain => streams,
        Variant::Floor => {
            let twice = Arc::new(Twice::connect(redis).await?);
            streams.layer(axum::middleware::map_response(move |response: Response| {
                let twice = Arc::clone(&twice);
                async move { response.map(|body| twice.body(body)) }
            }))
        }
        Variant::Trip => {
            let connection = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
            streams.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
                let mut connection = connection.clone();
                async move {
                    let _ = redis::cmd("PING").exec_async(&mut connection).await;
                    next.run(request).await
                }
            }))
        }
        _ => {
            tokio::spawn(guardian);
            streams.layer(sse.generation().id(StreamId::path("/s/{id}")))
        }
    };
    let go = move |Path(run): Path<u64>| {
        let open = Arc::clone(&open);
        async move { _ = open.send(run) }
    };
    let app =
        streams.route("/go/{run}", get(go)).route("/health", get(move || async move { sse.health().lost.to_string() }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
    axum::serve(listener.tap_io(|socket| _ = socket.set_nodelay(true)), app).await?;
    Ok(())
}

/// Streams `n` events of `size` bytes, at `rate` a second, once run `go` begins.
///
/// With `rate` 0 all events are ready together, or with `alone` each in a poll of its own. With `padded` the function
/// [`padded`] answers.
async fn answer(
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    mut gate: watch::Receiver<u64>,
) -> Response {
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    let pace = match number("rate") {
        rate if rate > 0.0 => {
            // The stream's number decides the shift, so that the streams' ticks are spread over the period.
            let stream = id.rsplit('-').next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
            Pace::ticks(rate, (stream * 0.618) % 1.0)
        }
        _ if number("alone") > 0.0 => Pace::Alone { gave: false },
        _ => Pace::Ready,
    };
    if number("padded") > 0.0 {
        return padded(number("n") as usize);
    }
    let run = number("go") as u64;
    let source = Source::new(number("n") as u64, number("size") as usize, pace);
    let source = source.after(async move { _ = gate.wait_for(|open| *open >= run).await });
    Sse::new(source).keep_alive(KeepAlive::default()).into_response()
}

/// Streams chunks of 64 KiB, each a long comment and one small event, like an upstream that pads.
fn padded(chunks: usize) -> Response {
    let chunk = |number: usize| {
        let event = format!("data: {{\"s\":{number:010},\"p\":\"\"}}\n\n");
        let mut chunk = String::with_capacity(64 << 10);
        chunk.push(':');
        chunk.extend(std::iter::repeat_n(' ', (64 << 10) - 2 - event.len()));
        chunk.push('\n');
        chunk.push_str(&event);
        Ok::<_, io::Error>(Bytes::from(chunk))
    };
    let body = Body::from_stream(stream::iter(0..chunks).map(chunk));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
