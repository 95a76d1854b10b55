//! A client that has missed 10,000 events and reconnects to another node.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use resilient_sse::{Durability, Owner, StreamId, StreamKey};

use crate::{
    Options, Result, distance,
    figure::{Goal, Line, over},
    hubs::{Hub, on_runtime},
    redis_servers::RedisServer,
    rows::{
        first::AWAY,
        trickle::{pings, some_pings},
    },
    source::{Pace, Source},
};

pub(crate) const WHAT: &str = "resume of 10,000 missed events from another node, 64 B";

const MISSED: u64 = 10_000;

pub(crate) fn measure(options: &Options) -> Result<Vec<Line>> {
    let redis = RedisServer::start();
    let mut raw = Raw::filled(&redis)?;
    let (mut raws, mut whole, mut firsts, mut trips, mut cpu, mut raw_cpu) = <[Vec<f64>; 6]>::default().into();
    on_runtime(async {
        let client = redis::Client::open(redis.url())?;
        let (producer, node) = (Hub::on_redis(&redis.url()).await?, Hub::on_redis(&redis.url()).await?);
        for round in 0..=options.rounds {
            let id = format!("missed-{round}");
            let source = Source::new(MISSED, 64, Pace::Ready);
            producer.open(Durability::BeforeSend, &id, None, source).await?.finish(MISSED).await?;
            let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new(&id)?);
            let epoch = producer.sse.registry().stream(&key).await?.ok_or("the stream is gone")?.epoch;
            let trip = tokio::spawn(pings(client.get_multiplexed_async_connection().await?)).await??;
            let before = busy(&redis)?;
            let took = raw.read()?;
            let between = busy(&redis)?;
            let begun = Instant::now();
            let cursor = format!("e{epoch}-0");
            let source = Source::new(0, 64, Pace::Ready);
            let mut reading = node.open(Durability::BeforeSend, &id, Some(&cursor), source).await?;
            reading.until(0).await?;
            let first = begun.elapsed();
            reading.finish(MISSED).await?;
            let own = begun.elapsed();
            let after = busy(&redis)?;
            if round > 0 {
                raws.push(took);
                whole.push(own.as_secs_f64() * 1e3);
                firsts.push(first.as_secs_f64() * 1e6);
                trips.push(trip);
                raw_cpu.push(between - before);
                cpu.push(after - between);
            }
        }
        Ok(())
    })?;
    let far = far_firsts(options, &redis)?;
    Ok(vec![
        Line::new(WHAT, "raw XRANGE of 10,000 one-event entries", "ms", Goal::None, raws.clone()),
        Line::new(WHAT, "the resume, whole", "ms", Goal::None, whole.clone()),
        Line::new(WHAT, "… against the raw XRANGE", "×", Goal::AtMost(2.0), over(&whole, &raws)),
        Line::new(WHAT, "… its first event, in round trips", "trips", Goal::AtMost(3.0), over(&firsts, &trips)),
        Line::new(WHAT, "… the same where Redis is 5 ms away", "trips", Goal::AtMost(3.0), far),
        Line::new(WHAT, "CPU of Redis, against the raw XRANGE", "×", Goal::None, over(&cpu, &raw_cpu)),
    ])
}

/// Returns the time to the first event in round trips, with a Redis so distant that all other costs are negligible.
fn far_firsts(options: &Options, redis: &RedisServer) -> Result<Vec<f64>> {
    let away = distance::away(&redis.address().to_string(), AWAY)?;
    on_runtime(async {
        let client = redis::Client::open(&*away)?;
        let node = Hub::on_redis(&away).await?;
        let mut trips = Vec::new();
        for round in 0..=options.rounds {
            let id = format!("missed-{round}");
            let key = StreamKey::new(Owner::ANONYMOUS, StreamId::new(&id)?);
            let ended = node.sse.registry().stream(&key).await?.ok_or("the stream is gone")?;
            let trip = tokio::spawn(some_pings(client.get_multiplexed_async_connection().await?, 20)).await??;
            let cursor = format!("e{}-0", ended.epoch);
            let begun = Instant::now();
            let mut reading =
                node.open(Durability::BeforeSend, &id, Some(&cursor), Source::new(0, 64, Pace::Ready)).await?;
            reading.until(0).await?;
            let first = begun.elapsed().as_secs_f64() * 1e6;
            reading.finish(MISSED).await?;
            if round > 0 {
                trips.push(first / trip);
            }
        }
        Ok(trips)
    })
}

/// Returns the CPU seconds of Redis.
fn busy(redis: &RedisServer) -> Result<f64> {
    let field = |name| redis.info(name).ok_or("INFO has no CPU").map(|value| value.parse::<f64>());
    Ok(field("used_cpu_user_main_thread")?? + field("used_cpu_sys_main_thread")??)
}

/// A connection, and a stream of one-event entries.
struct Raw {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    fn filled(redis: &RedisServer) -> Result<Self> {
        let mut connection = redis::Client::open(redis.url())?.get_connection()?;
        let mut fill = redis::pipe();
        for number in 0..MISSED {
            // The payload is as long as an event with its id. It ends with the number, so that `read` recognises the last
            // entry.
            let value = format!("{}{number:010}", "x".repeat(74));
            fill.cmd("XADD").arg("raw").arg("*").arg("e").arg(value).ignore();
        }
        fill.query::<()>(&mut connection)?;
        let socket = TcpStream::connect(redis.address())?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: vec![0; 4 << 20] })
    }

    /// Returns the time to read the whole stream, in ms.
    fn read(&mut self) -> Result<f64> {
        let last = format!("{:010}\r\n", MISSED - 1);
        let begun = Instant::now();
        self.socket.write_all(b"XRANGE raw - +\r\n")?;
        let mut end = 0;
        while !self.buffer[..end].ends_with(last.as_bytes()) {
            let read = self.socket.read(&mut self.buffer[end..])?;
            if read == 0 {
                return Err("the reply ended early, or is larger than the buffer".into());
            }
            end += read;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
