//! A value for each of a few stores. A volume has three or four, a node thousands of volumes: a list takes
//! a tenth of the memory that a tree takes for so few.

use trefoil_protocol::ids::StoreId;

/// The values, in the order of the stores.
#[derive(Clone, Debug)]
pub(super) struct ByStore<T>(Vec<(StoreId, T)>);

impl<T> Default for ByStore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByStore<T> {
    fn place(&self, store: StoreId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&store, |(store, _)| *store)
    }

    /// The value of a store.
    pub(super) fn get(&self, store: &StoreId) -> Option<&T> {
        self.place(*store).ok().map(|at| &self.0[at].1)
    }

    /// The value of a store, to be changed.
    pub(super) fn get_mut(&mut self, store: &StoreId) -> Option<&mut T> {
        self.place(*store).ok().map(|at| &mut self.0[at].1)
    }

    /// The value of a store, which is this one if it had none.
    pub(super) fn get_or_insert(&mut self, store: StoreId, value: T) -> &mut T {
        let at = self.place(store).unwrap_or_else(|at| {
            self.0.reserve_exact(1);
            self.0.insert(at, (store, value));
            at
        });
        &mut self.0[at].1
    }

    /// Forgets the stores that are not to stay.
    pub(super) fn retain(&mut self, stays: impl Fn(StoreId) -> bool) {
        self.0.retain(|(store, _)| stays(*store));
    }

    /// The stores with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&StoreId, &T)> {
        self.0.iter().map(|(store, value)| (store, value))
    }

    /// The values.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<T> FromIterator<(StoreId, T)> for ByStore<T> {
    fn from_iter<I: IntoIterator<Item = (StoreId, T)>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by_key(|(store, _)| *store);
        values.shrink_to_fit();
        Self(values)
    }
}
