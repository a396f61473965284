//! A UDP relay that stands for a link and can be cut: it stops forwarding, and tells nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::cluster::loopback;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    cut: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Forwards between one client and `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind(loopback()).await.expect("a socket"));
        let back = Arc::new(UdpSocket::bind(loopback()).await.expect("a socket"));
        back.connect(target).await.expect("a target");
        let address = front.local_addr().expect("bound");
        let cut = Arc::new(AtomicBool::new(false));
        let (client, clients) = tokio::sync::watch::channel(None);
        let mut tasks = JoinSet::new();
        let (from, to, is_cut) = (Arc::clone(&front), Arc::clone(&back), Arc::clone(&cut));
        tasks.spawn(async move {
            let mut datagram = vec![0; 65_536];
            while let Ok((length, source)) = from.recv_from(&mut datagram).await {
                client.send_replace(Some(source));
                if !is_cut.load(Ordering::Relaxed) {
                    let _ = to.send(&datagram[..length]).await;
                }
            }
        });
        let is_cut = Arc::clone(&cut);
        tasks.spawn(async move {
            let mut datagram = vec![0; 65_536];
            loop {
                // A closed target answers with an error; it may come back.
                let Ok(length) = back.recv(&mut datagram).await else { continue };
                let client = *clients.borrow();
                if let (false, Some(client)) = (is_cut.load(Ordering::Relaxed), client) {
                    let _ = front.send_to(&datagram[..length], client).await;
                }
            }
        });
        Self { address, cut, _tasks: tasks }
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}
