//! Simulates a distant Redis: a proxy that delays everything it forwards.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// Starts a proxy to the address `to` that adds a delay each way, and returns its URL. The proxy ends with the process.
pub(crate) fn away(to: &str, each_way: Duration) -> Result<String> {
    let (to, listener) = (to.to_owned(), TcpListener::bind("127.0.0.1:0")?);
    let url = format!("redis://{}", listener.local_addr()?);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let _ = (socket.set_nodelay(true), server.set_nodelay(true));
            if let (Ok(back), Ok(forth)) = (socket.try_clone(), server.try_clone()) {
                carry(socket, server, each_way);
                carry(forth, back, each_way);
            }
        }
    });
    Ok(url)
}

/// Forwards bytes in one direction, each piece `wait` after its arrival.
fn carry(mut from: TcpStream, mut to: TcpStream, wait: Duration) {
    let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + wait, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (at, piece) in pieces {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
