//! A client's connection, and its other half to the server.

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
            // Its membership begins here, so that a cut does not miss what was accepted before it.
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
        fate = told(&mut cut) => fate,
        end = forward(&mut client, &mut server, &controls) => Fate::End(end),
    };
    let Fate::End(end) = fate else { return pending().await };
    end_by(&client, end);
    drop(client);
    drop(cut);
    let_go(server).await;
}

async fn told(cut: &mut watch::Receiver<Cut>) -> Fate {
    let fate = cut.wait_for(Option::is_some).await;
    fate.ok().and_then(|fate| *fate).unwrap_or(Fate::End(End::Reset))
}

/// Until both sides have finished, or one is lost.
async fn forward(client: &mut TcpStream, server: &mut TcpStream, controls: &Controls) -> End {
    // Nothing may wait here for more to send with it.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return End::Reset;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = tokio::try_join!(requests(from_client, to_server, controls), replies(from_server, to_client, controls));
    both.map_or(End::Reset, |_| End::Finish)
}

/// How the client's side will end when it is dropped.
fn end_by(client: &TcpStream, end: End) {
    if end == End::Reset {
        // Where this fails the client is gone already.
        let _ = client.set_zero_linger();
    }
}

/// Ends the server's side in good order, so that it gets all that was forwarded: a socket that is closed with
/// unread replies would reset the connection.
async fn let_go(mut server: TcpStream) {
    let rest = async {
        server.shutdown().await?;
        copy(&mut server, &mut sink()).await
    };
    let _ = timeout(Duration::from_secs(1), rest).await;
}
