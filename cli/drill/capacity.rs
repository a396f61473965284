//! How much a cluster can do: clients in closed loops that do not think, twice as many again and again until that adds
//! little. A drill that offers too much must know how much is enough.

use std::time::{Duration, Instant};

use trefoil_client::Client;
use trefoil_drill::{DrillFile, End, Load as Shape};

use super::book::Book;
use super::load::Load;
use super::verify;
use crate::failure::{Failure, Verdict};

/// So long work so many clients.
const STEP: Duration = Duration::from_secs(5);

/// They have begun well after this long; what was answered before does not count.
const WARM: Duration = Duration::from_secs(1);

/// Clients of each tenant, at most.
const CLIENTS_MAX: u32 = 128;

/// Keys of each client: what is measured is put away again.
const KEYS: u64 = 2;

/// The longest that it takes.
pub(super) const LASTS: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Answers in a second.
    pub(super) per_second: u64,
    /// To so many clients.
    pub(super) clients: usize,
}

impl Capacity {
    /// What is measured with so many clients of each tenant.
    async fn of_step(
        file: &DrillFile,
        tenants: &[Client],
        prefix: &str,
        clients: u32,
        books: &mut Vec<(usize, Book)>,
    ) -> Verdict<Self> {
        let prefix = format!("{prefix}/{clients}");
        let load = Load::start(&without_pauses(file, clients), tenants, &prefix, Instant::now());
        tokio::time::sleep(STEP).await;
        let (worked_on, seen) = load.end().await;
        books.extend(worked_on);
        if let Some(wrong) = seen.wrong.first() {
            return Err(Failure::failed(format!("before anything was broken: {}", wrong.what)));
        }
        let counts = WARM.as_nanos()..STEP.as_nanos();
        let counted = seen
            .samples
            .iter()
            .filter(|sample| sample.end == End::Answered && counts.contains(&u128::from(sample.ended)));
        let per_second = counted.count() as u64 / (STEP - WARM).as_secs();
        Ok(Self { per_second, clients: tenants.len() * clients as usize })
    }

    fn adds_little_to(self, best: Self) -> bool {
        self.per_second * 10 < best.per_second * 11
    }
}

/// Measures it with the operations of a file; the keys begin with `prefix`, and nothing is left of them.
pub(super) async fn measure(file: &DrillFile, tenants: &[Client], prefix: &str) -> Verdict<Capacity> {
    let (mut books, mut best) = (Vec::new(), Capacity { per_second: 0, clients: 0 });
    for clients in (0..).map(|step| 1 << step).take_while(|clients| *clients <= CLIENTS_MAX) {
        let step = Capacity::of_step(file, tenants, prefix, clients, &mut books).await?;
        let adds_little = step.adds_little_to(best);
        if step.per_second > best.per_second {
            best = step;
        }
        if adds_little {
            break;
        }
    }
    verify::clear(tenants, &books).await;
    match best.per_second {
        0 => Err(Failure::unavailable("no client had an answer: what the cluster can do cannot be measured")),
        _ => Ok(best),
    }
}

/// The file's operations, in loops that do not think.
fn without_pauses(file: &DrillFile, clients: u32) -> DrillFile {
    let load = Shape {
        clients_per_tenant: clients,
        keys: KEYS,
        think: trefoil_drill::Duration(0),
        arrivals: Vec::new(),
        capacity: None,
        ..file.load.clone()
    };
    let horizon = trefoil_drill::Duration(u64::try_from(STEP.as_nanos()).expect("some seconds"));
    DrillFile { load, horizon, ..file.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_clients_are_tried_as_long_as_they_do_a_tenth_more() {
        let found = |per_second| Capacity { per_second, clients: 8 };
        assert!(!found(100).adds_little_to(found(0)));
        assert!(!found(110).adds_little_to(found(100)));
        assert!(found(109).adds_little_to(found(100)));
        assert!(found(0).adds_little_to(found(100)), "nor do those that are too many");
    }

    #[test]
    fn what_is_measured_are_the_operations_of_the_file_in_closed_loops() {
        let text = "name = \"x\"\n[load]\nput = 70\nget = 30\ncapacity = 120\n[[load.arrivals]]\nfrom = \"0s\"\n\
                    per_second = 96\n";
        let file = DrillFile::parse(text).expect("a good drill");
        let measured = without_pauses(&file, 4).load;
        assert_eq!((measured.put, measured.get, measured.clients_per_tenant), (70, 30, 4));
        assert_eq!((measured.think.0, measured.arrivals.len()), (0, 0));
        let offered = |per_second| file.load.meant_for(per_second).arrivals[0].per_second;
        assert_eq!([offered(120), offered(1_000), offered(1)], [96, 800, 1]);
    }
}
