//! Values of every type on the wire, drawn from a number: the same number gives the same value, and a
//! field's value depends on its name alone, so that a new field changes no other.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use trefoil_protocol::codec;
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::message::admin::ClusterStatus;
use trefoil_protocol::message::tenant::TenantAnswer;
use trefoil_protocol::tree::RangeProof;

use crate::shapes::Shape;

/// Where a value is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    state: u64,
    /// The longest list.
    length_max: u64,
    /// Every option is there, every list is as long as it may be.
    full: bool,
}

impl Source {
    /// Anything, with lists up to `length_max`.
    pub(crate) fn seeded(seed: u64, length_max: u64) -> Self {
        Self { state: seed, length_max, full: false }
    }

    /// What the golden files hold: always the same, and nothing left out.
    pub(crate) fn golden() -> Self {
        Self { state: 1, length_max: 2, full: true }
    }

    /// The source of a part.
    pub(crate) fn field(self, name: &str) -> Self {
        let state = name.bytes().fold(self.state, |state, byte| mixed(state ^ u64::from(byte)));
        Self { state, ..self }
    }

    fn item(self, index: u64) -> Self {
        Self { state: mixed(self.state ^ index), ..self }
    }

    /// A number below `end`.
    pub(crate) fn below(self, end: u64) -> u64 {
        mixed(self.state) % end
    }

    fn length(self) -> u64 {
        if self.full { self.length_max } else { self.below(self.length_max + 1) }
    }
}

/// The finalizer of splitmix64.
fn mixed(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// A type of which any value can be drawn.
pub(crate) trait Draw {
    fn draw(source: Source) -> Self;
}

impl Draw for u64 {
    /// The edges of CBOR's number lengths as often as anything else.
    fn draw(source: Source) -> Self {
        let any = source.item(1).below(u64::MAX);
        let edges = [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
        edges.get(source.below(20) as usize).copied().unwrap_or(any)
    }
}

impl Draw for u32 {
    fn draw(source: Source) -> Self {
        u64::draw(source) as u32
    }
}

impl Draw for i64 {
    fn draw(source: Source) -> Self {
        u64::draw(source).cast_signed() >> 1
    }
}

impl Draw for bool {
    fn draw(source: Source) -> Self {
        source.full || source.below(2) == 1
    }
}

impl<const N: usize> Draw for [u8; N] {
    fn draw(source: Source) -> Self {
        std::array::from_fn(|at| source.item(at as u64).below(256) as u8)
    }
}

impl Draw for Bytes {
    fn draw(source: Source) -> Self {
        (0..16 * source.length()).map(|at| source.item(at).below(256) as u8).collect()
    }
}

impl Draw for String {
    fn draw(source: Source) -> Self {
        let letters = ['a', 'z', '/', ' ', 'ü', '🗝', '\0'];
        (0..3 * source.length()).map(|at| letters[source.item(at).below(7) as usize]).collect()
    }
}

impl Draw for ObjectKey {
    fn draw(source: Source) -> Self {
        Self::new(format!("k{}", String::draw(source))).expect("short and not empty")
    }
}

impl Draw for SocketAddr {
    fn draw(source: Source) -> Self {
        let port = u32::draw(source.field("port")) as u16;
        match source.below(2) {
            0 => (Ipv4Addr::from(<[u8; 4]>::draw(source)), port).into(),
            _ => (Ipv6Addr::from(<[u8; 16]>::draw(source)), port).into(),
        }
    }
}

impl Draw for RangeProof {
    /// Proofs are made of trees; only their bytes can hold any hashes.
    fn draw(source: Source) -> Self {
        let siblings: Vec<[u8; 32]> = Draw::draw(source);
        let bytes = minicbor::bytes::ByteVec::from(siblings.concat());
        codec::from_slice(&codec::to_vec(&bytes)).expect("few whole hashes")
    }
}

impl Draw for Box<TenantAnswer> {
    /// The answers that a mutation has.
    fn draw(source: Source) -> Self {
        let name = ["Stored", "Deleted", "Undeleted"][source.below(3) as usize];
        let index = TenantAnswer::CASES.iter().position(|case| case.name == name);
        Self::new(TenantAnswer::case(index.expect("an answer's name"), source))
    }
}

impl Draw for Box<ClusterStatus> {
    fn draw(source: Source) -> Self {
        Self::new(ClusterStatus::draw(source))
    }
}

impl<T: Draw> Draw for Option<T> {
    fn draw(source: Source) -> Self {
        bool::draw(source.field("some")).then(|| T::draw(source))
    }
}

impl<T: Draw> Draw for Vec<T> {
    fn draw(source: Source) -> Self {
        (0..source.length()).map(|index| T::draw(source.item(index))).collect()
    }
}

impl<A: Draw, B: Draw> Draw for (A, B) {
    fn draw(source: Source) -> Self {
        (A::draw(source.item(0)), B::draw(source.item(1)))
    }
}

impl<A: Draw, B: Draw> Draw for Result<A, B> {
    fn draw(source: Source) -> Self {
        if source.below(2) == 0 { Ok(A::draw(source)) } else { Err(B::draw(source)) }
    }
}

/// A name of an id: lower-case letters.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(source: Source) -> T {
    let letters = (0..1 + source.below(15)).map(|at| char::from(b'a' + source.item(at).below(26) as u8));
    letters.collect::<String>().parse().expect("1 to 15 letters")
}

/// A power of two.
pub(crate) fn power_of_two(source: Source) -> u32 {
    1 << source.below(13)
}
