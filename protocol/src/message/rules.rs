//! The rules of a tenant's request that no single field can hold: how its parts fit together. A server
//! checks them before anything else, so that what lies behind may rely on them.

use super::tenant::{Precondition, PutRequest, Refusal, TenantCall, TenantRequest, UploadEnd, Want};
use crate::record::INLINE_MAX;

impl TenantRequest {
    /// The first thing a server does with a request that came with `bulk` bytes behind it: whether it
    /// keeps the rules that no single field can hold.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with the rule that is broken.
    pub fn check(&self, bulk: usize) -> Result<(), Refusal> {
        let broken = match &self.call {
            TenantCall::Put(PutRequest { inline: Some(end), .. }) => inline_fault(end, bulk),
            _ if bulk > 0 => Some("only an inline put has bytes behind it"),
            TenantCall::Get { want: Want::Leaves(ranges), .. } => ranges_fault(ranges),
            TenantCall::List { limit: 0, .. } | TenantCall::Deleted { limit: 0, .. } => {
                Some("a page of no lines never ends")
            }
            TenantCall::Delete { precondition: Precondition::Absent, .. } => {
                Some("what is absent cannot be deleted")
            }
            _ => None,
        };
        broken.map_or(Ok(()), |rule| Err(Refusal::Invalid(rule.into())))
    }
}

fn inline_fault(end: &UploadEnd, bulk: usize) -> Option<&'static str> {
    if end.sealed_length > INLINE_MAX {
        return Some("an inline object is longer than its limit");
    }
    (end.sealed_length != bulk as u64).then_some("an inline object has another length than announced")
}

fn ranges_fault(ranges: &[(u32, u32)]) -> Option<&'static str> {
    if ranges.is_empty() {
        return Some("no leaves are asked for");
    }
    let mut free_from = 0;
    for (first, count) in ranges {
        let Some(end) = first.checked_add(*count).filter(|end| end > first) else {
            return Some("a leaf range is empty or ends behind every object");
        };
        if *first < free_from {
            return Some("leaf ranges overlap or are out of order");
        }
        free_from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Hash, VolumeId};
    use crate::key::ObjectKey;
    use crate::message::tenant::Selector;
    use crate::time::Millis;

    fn check(call: TenantCall, bulk: usize) -> Result<(), Refusal> {
        TenantRequest { volume: VolumeId(1), epoch: Epoch(1), call, within: Millis(1) }.check(bulk)
    }

    fn leaves(ranges: &[(u32, u32)]) -> Result<(), Refusal> {
        let key = ObjectKey::new("k").expect("a key");
        check(TenantCall::Get { key, selector: Selector::Latest, want: Want::Leaves(ranges.into()) }, 0)
    }

    #[test]
    fn leaf_ranges_ascend_and_stay_apart() {
        for good in [&[(0, 1)][..], &[(0, 2), (2, 1)], &[(5, 1), (9, u32::MAX - 9)]] {
            assert_eq!(leaves(good), Ok(()), "{good:?}");
        }
        for bad in [&[][..], &[(0, 0)], &[(0, 2), (1, 1)], &[(3, 1), (0, 1)], &[(1, u32::MAX)]] {
            assert!(matches!(leaves(bad), Err(Refusal::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_inline_object_is_as_long_as_announced_and_short() {
        let end = |sealed_length| UploadEnd { root: Hash::ZERO, sealed_length, metadata: Default::default() };
        assert_eq!(inline_fault(&end(INLINE_MAX), INLINE_MAX as usize), None);
        assert!(inline_fault(&end(INLINE_MAX + 1), INLINE_MAX as usize + 1).is_some());
        assert!(inline_fault(&end(5), 4).is_some());
    }

    #[test]
    fn bytes_belong_behind_a_put_alone() {
        assert_eq!(check(TenantCall::Route, 0), Ok(()));
        assert!(check(TenantCall::Route, 1).is_err());
        assert!(check(TenantCall::List { prefix: String::new(), after: None, limit: 0 }, 0).is_err());
    }
}
