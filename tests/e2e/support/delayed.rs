//! Ways to servers on which answers take longer than usual.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

/// Forwards connections to servers, and holds what they answer for a while. On a thread of its own: stories wait
/// for processes without giving way.
pub struct Delayed {
    /// `host:port,host:port`: where to connect instead.
    pub addresses: String,
    delay: watch::Sender<Duration>,
    runtime: Option<Runtime>,
}

impl Delayed {
    /// Forwards to ports of this machine.
    pub fn start(ports: &[u16]) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let delay = watch::Sender::new(Duration::ZERO);
        let mut addresses = Vec::new();
        for port in ports {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            runtime.spawn(serve(listener, *port, delay.subscribe()));
        }
        Self {
            addresses: addresses.join(","),
            delay,
            runtime: Some(runtime),
        }
    }

    /// How long each part of an answer is held from now on.
    pub fn hold_answers(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, port: u16, delay: watch::Receiver<Duration>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((client, _)) = listener.accept().await {
        let delay = delay.clone();
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = forward(client, server, delay).await;
            }
        });
    }
}

/// Until either side has closed the connection.
async fn forward(
    mut client: TcpStream,
    mut server: TcpStream,
    delay: watch::Receiver<Duration>,
) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut part).await?;
            if length == 0 {
                return io::Result::Ok(());
            }
            let delay = *delay.borrow();
            tokio::time::sleep(delay).await;
            to_client.write_all(&part[..length]).await?;
        }
    };
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(|_| ()),
        answered = answers => answered,
    }
}
