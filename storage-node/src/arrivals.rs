//! News on their way in. Each volume that they tell of may cost a node several writes to its disk, so
//! it takes over a few at a time and comes to renew its lease and to answer in between. What news tell
//! is known when the last of it is taken in, and no sooner.

use std::collections::VecDeque;

use trefoil_protocol::config::VolumeConfig;
use trefoil_protocol::ids::ConfigIndex;
use trefoil_protocol::message::control::News;

/// Volumes taken over in one step.
pub(crate) const TAKEN_AT_ONCE: usize = 32;

/// What was heard and is not taken in yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    waiting: VecDeque<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    volumes: VecDeque<VolumeConfig>,
    rest: News,
}

/// What is to be taken in next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A volume, from news of this position.
    Volume(VolumeConfig, ConfigIndex),
    /// All volumes of these news are in; these are the news without them.
    All(News),
}

impl Arrivals {
    /// Whether everything heard is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// News were heard.
    pub(crate) fn push(&mut self, mut news: News) {
        let volumes = std::mem::take(&mut news.volumes).into();
        self.waiting.push_back(Arrival { volumes, rest: news });
    }

    /// Takes out what is next.
    pub(crate) fn next(&mut self) -> Option<Next> {
        let arrival = self.waiting.front_mut()?;
        match arrival.volumes.pop_front() {
            Some(config) => Some(Next::Volume(config, arrival.rest.index)),
            None => self.waiting.pop_front().map(|arrival| Next::All(arrival.rest)),
        }
    }
}
