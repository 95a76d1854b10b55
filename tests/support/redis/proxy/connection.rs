//! A client's connection to the proxy, and the proxy's connection to the server for it.

use std::{future::pending, net, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt as _, copy, sink},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use super::{
    End,
    controls::{Controls, Cut, Fate},
    pump::{replies, requests},
};

pub(super) async fn accept(listener: net::TcpListener, controls: Arc<Controls>) {
    listener.set_nonblocking(true).expect("a socket of this process");
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let (client, _) = listener.accept().await.expect("the listener accepts");
        controls.connections.add(1);
        if controls.faults().refuse {
            end_by(&client, End::Reset);
        } else {
            // Join here, not in the task: a cut must end every connection that was accepted before it.
            tokio::spawn(serve(client, controls.join(), controls.clone()));
        }
    }
}

async fn serve(mut client: TcpStream, mut cut: watch::Receiver<Cut>, controls: Arc<Controls>) {
    let Ok(mut server) = TcpStream::connect(controls.faults().server).await else {
        return end_by(&client, End::Reset);
    };
    let fate = tokio::select! {
        biased;
        fate = fate(&mut cut) => fate,
        end = forward(&mut client, &mut server, &controls) => Fate::End(end),
    };
    let Fate::End(end) = fate else { return pending().await };
    end_by(&client, end);
    drop(client);
    drop(cut);
    finish(server).await;
}

/// Waits until a control decides the fate of this connection's generation.
async fn fate(cut: &mut watch::Receiver<Cut>) -> Fate {
    let fate = cut.wait_for(Option::is_some).await;
    fate.ok().and_then(|fate| *fate).unwrap_or(Fate::End(End::Reset))
}

/// Forwards in both directions until both sides have finished or one connection fails.
async fn forward(client: &mut TcpStream, server: &mut TcpStream, controls: &Controls) -> End {
    // Nagle's algorithm would hold small packets back.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return End::Reset;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = tokio::try_join!(requests(from_client, to_server, controls), replies(from_server, to_client, controls));
    both.map_or(End::Reset, |_| End::Finish)
}

/// Sets how the client's connection ends when it is dropped.
fn end_by(client: &TcpStream, end: End) {
    if end == End::Reset {
        // This fails only if the client has gone already.
        let _ = client.set_zero_linger();
    }
}

/// Closes the connection to the server so that the server receives all forwarded bytes. The replies are read to their
/// end first, because closing a socket with unread bytes resets the connection.
async fn finish(mut server: TcpStream) {
    let rest = async {
        server.shutdown().await?;
        copy(&mut server, &mut sink()).await
    };
    let _ = timeout(Duration::from_secs(1), rest).await;
}
