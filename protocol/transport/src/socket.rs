//! UDP sockets that wake their process only for what arrives.
//!
//! QUIC's own socket for tokio asks to be told of room for sending, too: then every datagram that the
//! system has sent wakes the process once more, for nothing. Here room is asked for only after a send
//! found none. And a receive that took everything there was is not asked again whether there is more.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tokio, with these sockets.
#[derive(Debug)]
pub(crate) struct QuietRuntime;

impl Runtime for QuietRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(QuietSocket::new(socket)?))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
struct QuietSocket {
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// A send found no room, and nobody has found some since.
    is_full: AtomicBool,
}

/// Watches a socket for one thing only.
#[allow(
    deprecated,
    reason = "a socket of the standard library keeps its descriptor, which is all it asks for"
)]
fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

impl QuietSocket {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Self { socket, state, is_full: AtomicBool::new(false) })
    }
}

impl AsyncUdpSocket for QuietSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, wait: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.socket.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(cx))?;
            let received = readable.try_io(|socket| self.state.recv(socket.get_ref().into(), buffers, metas));
            let Ok(received) = received else { continue };
            // Fewer than there was room for: nothing was left. What comes later makes it readable anew.
            if received.as_ref().is_ok_and(|count| *count < buffers.len().min(metas.len())) {
                readable.clear_ready();
            }
            return Poll::Ready(received);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// One connection's wait for room to send.
#[derive(Debug)]
struct Room {
    socket: Arc<QuietSocket>,
    /// The same socket, watched for room; there only while there is none.
    wait: Option<AsyncFd<UdpSocket>>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wait.is_none() {
            if !self.socket.is_full.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            let socket = self.socket.socket.get_ref().try_clone()?;
            self.wait = Some(watch(socket, Interest::WRITABLE)?);
        }
        let wait = self.wait.as_ref().expect("just made");
        ready!(wait.poll_write_ready(cx))?.retain_ready();
        self.wait = None;
        self.socket.is_full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use super::*;

    fn socket() -> Arc<QuietSocket> {
        Arc::new(QuietSocket::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap())
    }

    fn datagram(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// What there is, as QUIC asks for it.
    async fn receive(socket: &dyn AsyncUdpSocket) -> Vec<Vec<u8>> {
        let mut buffers = vec![vec![0; 65_536]; quinn::udp::BATCH_SIZE];
        let mut metas = vec![RecvMeta::default(); quinn::udp::BATCH_SIZE];
        let count = poll_fn(|cx| {
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            socket.poll_recv(cx, &mut slices, &mut metas)
        });
        let count = count.await.unwrap();
        let taken = metas.iter().zip(&buffers).take(count);
        taken.map(|(meta, buffer)| buffer[..meta.len].to_vec()).collect()
    }

    #[tokio::test]
    async fn datagrams_that_come_after_a_receive_took_all_are_received_too() {
        let (from, to) = (socket(), socket());
        let address = to.local_addr().unwrap();
        for number in 0..100_u8 {
            from.try_send(&datagram(address, &[number])).unwrap();
            assert_eq!(receive(to.as_ref()).await, [vec![number]]);
        }
    }

    #[tokio::test]
    async fn whoever_found_no_room_waits_until_there_is_some_and_nobody_waits_after_that() {
        let socket = socket();
        socket.is_full.store(true, Ordering::Relaxed);
        let mut room = Room { socket: Arc::clone(&socket), wait: None };
        let mut pending = 0;
        poll_fn(|cx| {
            let polled = Pin::new(&mut room).poll_writable(cx);
            pending += u32::from(polled.is_pending());
            polled
        })
        .await
        .unwrap();
        assert_eq!(pending, 1, "the system was asked");
        assert!(room.wait.is_none() && !socket.is_full.load(Ordering::Relaxed));
        let at_once = poll_fn(|cx| Poll::Ready(Pin::new(&mut room).poll_writable(cx).is_ready())).await;
        assert!(at_once && room.wait.is_none());
    }
}
