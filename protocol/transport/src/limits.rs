//! Every limit of a connection, set explicitly, and the memory they add up to.
//!
//! Nothing here may fall back on a default of the QUIC library: a default can change with a
//! version, and "unlimited" is among them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// The largest UDP payload on an ordinary path: an Ethernet frame behind any tunnel we know.
pub const PAYLOAD_BYTES_MAX: u16 = 1452;

/// The largest UDP payload on loopback. Segmentation offload sends ten datagrams as one, which
/// must stay below 65 507 bytes: above, the kernel refuses and the connection hangs unseen.
pub const LOOPBACK_PAYLOAD_BYTES_MAX: u16 = 6500;

const _: () = assert!(LOOPBACK_PAYLOAD_BYTES_MAX as u32 * 10 < 65_507);

/// What every QUIC path must carry.
const PAYLOAD_BYTES_MIN: u16 = 1200;

/// What one endpoint may use. `Default` is what production runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a peer may send on one stream before they are read.
    pub stream_window_bytes: u32,
    /// Bytes a peer may send on one connection before they are read.
    pub connection_window_bytes: u32,
    /// Bytes kept on one connection until the peer has acknowledged them.
    pub send_window_bytes: u32,
    /// Bytes of large frames put together at once on one connection; the others wait in the
    /// windows. At least one longest frame.
    pub assembly_bytes: u32,
    /// Streams of each direction a peer may have open on one connection.
    pub streams_max: u32,
    /// Connections a listener keeps at once.
    pub connections_max: u32,
    /// Handshakes a listener runs at once; further ones are refused.
    pub handshakes_max: u32,
    /// Handshakes at once above which a peer must first prove its address (Retry).
    pub unvalidated_max: u32,
    /// Handshakes that wait for the listener.
    pub incoming_max: u32,
    /// Bytes kept for one handshake that waits.
    pub incoming_bytes: u32,
    /// Bytes kept for all handshakes that wait.
    pub incoming_bytes_total: u32,
    /// How long a handshake may take.
    pub handshake_time_max: Duration,
    /// How long a connection may be silent.
    pub idle_time_max: Duration,
    /// How old a connection may become before the one who dialled replaces it. A listener closes
    /// what reaches twice this age. Far below the life of a certificate, so that nobody speaks long
    /// on one that has run out.
    pub connection_age_max: Duration,
    /// How often a silent connection says that it lives.
    pub keep_alive_interval: Duration,
    /// Size asked for each of the socket's two kernel buffers.
    pub socket_buffer_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window_bytes: 16 << 20,
            connection_window_bytes: 64 << 20,
            send_window_bytes: 64 << 20,
            assembly_bytes: 64 << 20,
            streams_max: 1024,
            connections_max: 4096,
            handshakes_max: 256,
            unvalidated_max: 64,
            incoming_max: 256,
            incoming_bytes: 16 << 10,
            incoming_bytes_total: 4 << 20,
            handshake_time_max: Duration::from_secs(5),
            idle_time_max: Duration::from_secs(15),
            connection_age_max: Duration::from_secs(60 * 60),
            keep_alive_interval: Duration::from_secs(5),
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// The longest frame that is put together without asking: enough for every message without bulk
/// that is not exceptional.
pub(crate) const SMALL_FRAME_BYTES_MAX: usize = 16 << 10;

/// Bytes of TLS messages kept for one connection that arrive out of order.
const CRYPTO_BUFFER_BYTES: u32 = 16 << 10;

/// Bytes of datagrams kept each way; they are probes, of which only the newest matter.
const DATAGRAM_BUFFER_BYTES: usize = 4 << 10;

impl Limits {
    /// The most memory one connection can make this process hold: both windows, the frames being
    /// put together, its datagrams and its handshake.
    ///
    /// Frames count beside the windows because a reader takes their bytes out of the window while
    /// it puts them together: large ones up to their common limit, a small one per stream.
    pub fn connection_memory_bytes_max(&self) -> u64 {
        let small_frames = u64::from(self.streams_max) * 2 * SMALL_FRAME_BYTES_MAX as u64;
        u64::from(self.connection_window_bytes)
            + u64::from(self.send_window_bytes)
            + u64::from(self.assembly_bytes)
            + small_frames
            + 2 * DATAGRAM_BUFFER_BYTES as u64
            + u64::from(CRYPTO_BUFFER_BYTES)
    }

    /// The most memory that peers who have not shown a certificate yet can make a listener hold.
    pub fn unauthenticated_memory_bytes_max(&self) -> u64 {
        u64::from(self.incoming_bytes_total) + u64::from(self.handshakes_max) * u64::from(CRYPTO_BUFFER_BYTES)
    }

    pub(crate) fn transport(&self, path: PathKind) -> Arc<TransportConfig> {
        let idle = IdleTimeout::try_from(self.idle_time_max).expect("an idle time below 2^62 ms");
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(path.payload_bytes_max());
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(u64::from(self.send_window_bytes))
            .max_concurrent_uni_streams(VarInt::from_u32(self.streams_max))
            .max_concurrent_bidi_streams(VarInt::from_u32(self.streams_max))
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive_interval))
            .crypto_buffer_size(CRYPTO_BUFFER_BYTES as usize)
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
            .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
            .initial_rtt(path.round_trip())
            .min_mtu(PAYLOAD_BYTES_MIN)
            .initial_mtu(path.payload_bytes_first())
            .mtu_discovery_config(Some(discovery))
            .congestion_controller_factory(Arc::new(CubicConfig::default()))
            .enable_segmentation_offload(true);
        Arc::new(transport)
    }
}

/// What is known of a path before anything was sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// Both ends are on this machine.
    Loopback,
    /// Anything else.
    Network,
}

impl PathKind {
    /// The path of a socket bound to `local`.
    pub(crate) fn of(local: IpAddr) -> Self {
        if local.is_loopback() { Self::Loopback } else { Self::Network }
    }

    pub(crate) fn payload_bytes_max(self) -> u16 {
        match self {
            Self::Loopback => LOOPBACK_PAYLOAD_BYTES_MAX,
            Self::Network => PAYLOAD_BYTES_MAX,
        }
    }

    fn payload_bytes_first(self) -> u16 {
        match self {
            Self::Loopback => LOOPBACK_PAYLOAD_BYTES_MAX,
            Self::Network => PAYLOAD_BYTES_MIN,
        }
    }

    /// The round trip assumed before the first is measured; it sets the pace of a first try.
    fn round_trip(self) -> Duration {
        match self {
            Self::Loopback => Duration::from_millis(20),
            Self::Network => Duration::from_millis(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_protocol::frame::{BODY_BYTES_MAX, BULK_BYTES_MAX};

    #[test]
    fn r097_the_limits_are_the_documented_ones_and_their_memory_is_known() {
        let limits = Limits::default();
        assert!(limits.idle_time_max <= Duration::from_secs(30));
        assert!(limits.handshake_time_max <= Duration::from_secs(5));
        assert!(limits.keep_alive_interval * 2 < limits.idle_time_max);
        assert!(limits.unvalidated_max < limits.handshakes_max);
        assert_eq!(limits.unauthenticated_memory_bytes_max(), 8 << 20);
        assert_eq!(limits.connection_memory_bytes_max(), (192 << 20) + (32 << 20) + (24 << 10));
        assert!(limits.assembly_bytes >= BODY_BYTES_MAX + BULK_BYTES_MAX);
    }

    #[test]
    fn r097_every_limit_reaches_the_connection() {
        let text = format!("{:?}", Limits::default().transport(PathKind::Loopback));
        for expected in [
            "max_concurrent_bidi_streams: 1024",
            "max_concurrent_uni_streams: 1024",
            "stream_receive_window: 16777216",
            "receive_window: 67108864",
            "send_window: 67108864",
            "initial_mtu: 6500",
            "enable_segmentation_offload: true",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }
}
