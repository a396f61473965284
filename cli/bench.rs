//! `trefoil bench run`: closed-loop workers against a running cluster, and what they saw. Latencies
//! are the client's, from the first byte given to the acknowledgement.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::task::JoinSet;
use trefoil_client::Client;
use trefoil_protocol::key::ObjectKey;

use crate::failure::{Failure, Verdict};
use crate::output::{self, Format};
use crate::{progress, quantity};

/// The largest object that is measured: it is held in memory.
const SIZE_MAX: u64 = 1 << 30;

/// Linux counts processor time for `/proc` in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    /// Put, get and delete for a while and tell how fast it was
    Run(RunArguments),
}

/// Arguments of `bench run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArguments {
    /// Bytes of an object
    #[arg(long, default_value = "4KiB", value_parser = quantity::size)]
    size: u64,
    /// Operations under way at once
    #[arg(long, default_value_t = 16, value_name = "N")]
    concurrency: u32,
    /// Weight of puts
    #[arg(long, default_value_t = 1, value_name = "WEIGHT")]
    put: u32,
    /// Weight of gets
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    get: u32,
    /// Weight of deletes
    #[arg(long, default_value_t = 0, value_name = "WEIGHT")]
    delete: u32,
    /// How long
    #[arg(long, default_value = "10s", value_parser = quantity::duration, value_name = "TIME")]
    duration: Duration,
    /// Objects that are stored before the clock starts, for gets and deletes
    #[arg(long, default_value_t = 1000, value_name = "N")]
    objects: u32,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// A local cluster's folder: counts the processor time of its servers
    #[arg(long, value_name = "DIR")]
    servers: Option<PathBuf>,
}

/// What `bench run --json` says.
#[derive(Debug, Serialize)]
struct Measured {
    workload: String,
    size: u64,
    concurrency: u32,
    seconds: f64,
    operations: u64,
    errors: u64,
    bytes_per_second: f64,
    operations_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    client_cpu_seconds: f64,
    /// `None` unless the servers are known.
    server_cpu_seconds: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Put,
    Get,
    Delete,
}

/// Runs a verb.
pub(crate) async fn run(verb: &BenchVerb, client: &Client, format: Format) -> Verdict {
    let BenchVerb::Run(arguments) = verb;
    check(arguments)?;
    let mut content = vec![0; usize::try_from(arguments.size).expect("checked")];
    getrandom::fill(&mut content).map_err(Failure::failed)?;
    let content = Bytes::from(content);
    let mut workers = Vec::new();
    for number in 0..arguments.concurrency {
        workers.push(Worker::new(number, client, arguments, content.clone())?);
    }
    if arguments.get + arguments.delete > 0 {
        workers = fill(workers, arguments).await?;
    }
    let measured = measure(workers, arguments).await?;
    format.answer(&measured, in_words);
    if measured.operations == 0 { Err(Failure::failed("nothing succeeded")) } else { Ok(()) }
}

fn check(arguments: &RunArguments) -> Verdict {
    if arguments.put + arguments.get + arguments.delete == 0 {
        return Err(Failure::usage("every weight is 0"));
    }
    if arguments.size > SIZE_MAX || arguments.concurrency == 0 {
        return Err(Failure::usage("at most 1 GiB an object, and at least one operation at once"));
    }
    Ok(())
}

/// One operation after the other, on keys of its own.
struct Worker {
    client: Client,
    weights: [(Operation, u32); 3],
    prefix: String,
    content: Bytes,
    random: u64,
    made: u64,
    live: Vec<ObjectKey>,
    samples: Vec<Duration>,
    bytes: u64,
}

impl Worker {
    fn new(number: u32, client: &Client, arguments: &RunArguments, content: Bytes) -> Verdict<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(Failure::failed)?;
        let run = u64::from_le_bytes(seed);
        let weights = [
            (Operation::Put, arguments.put),
            (Operation::Get, arguments.get),
            (Operation::Delete, arguments.delete),
        ];
        Ok(Self {
            client: client.clone(),
            weights,
            prefix: format!("{}{run:016x}/{number}/", arguments.prefix),
            content,
            random: run | 1,
            made: 0,
            live: Vec::new(),
            samples: Vec::new(),
            bytes: 0,
        })
    }

    /// A number below `limit`; xorshift is random enough to spread keys.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn choose(&mut self) -> Operation {
        let sum: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut point = self.below(sum.into());
        for (operation, weight) in self.weights {
            if point < weight.into() {
                return operation;
            }
            point -= u64::from(weight);
        }
        unreachable!("the point lies below the sum of the weights")
    }

    /// The key of an own object; `None` when all are deleted.
    fn pick(&mut self) -> Option<usize> {
        let count = self.live.len() as u64;
        (count > 0).then(|| usize::try_from(self.below(count)).expect("an index"))
    }

    async fn put(&mut self) -> Verdict<u64> {
        self.made += 1;
        let key = ObjectKey::new(format!("{}{}", self.prefix, self.made)).map_err(Failure::usage)?;
        let stored = self.client.put(&key, self.content.clone()).await?;
        self.live.push(key);
        Ok(stored.bytes)
    }

    async fn get(&mut self, index: usize) -> Verdict<u64> {
        let mut download = self.client.get(&self.live[index]).await?;
        let mut length = 0;
        while let Some(bytes) = download.next().await? {
            length += bytes.len() as u64;
        }
        Ok(length)
    }

    /// Runs one operation. `None` when there is nothing left to do.
    async fn step(&mut self) -> Option<Verdict<u64>> {
        let operation = self.choose();
        let began = Instant::now();
        let done = match operation {
            Operation::Put => self.put().await,
            Operation::Get => {
                let index = self.pick()?;
                self.get(index).await
            }
            Operation::Delete => {
                let index = self.pick()?;
                let key = self.live.swap_remove(index);
                self.client.delete(&key).await.map(|_| 0).map_err(Failure::from)
            }
        };
        if let Ok(bytes) = done {
            self.samples.push(began.elapsed());
            self.bytes += bytes;
        }
        Some(done)
    }
}

/// Stores objects before the clock starts.
async fn fill(workers: Vec<Worker>, arguments: &RunArguments) -> Verdict<Vec<Worker>> {
    let each = arguments.objects.div_ceil(arguments.concurrency);
    let bar = progress::objects("filling");
    bar.inc_length(u64::from(each) * u64::from(arguments.concurrency));
    let mut filling = JoinSet::new();
    for mut worker in workers {
        let bar = bar.clone();
        filling.spawn(async move {
            for _ in 0..each {
                worker.put().await?;
                bar.inc(1);
            }
            Ok::<Worker, Failure>(worker)
        });
    }
    let mut filled = Vec::new();
    while let Some(worker) = filling.join_next().await {
        filled.push(worker.expect("a put does not panic")?);
    }
    bar.finish_and_clear();
    Ok(filled)
}

async fn measure(workers: Vec<Worker>, arguments: &RunArguments) -> Verdict<Measured> {
    let errors = Arc::new(AtomicU64::new(0));
    let first_error = Arc::new(Mutex::new(None));
    let client_before = cpu_seconds("self").unwrap_or_default();
    let servers_before = server_cpu_seconds(arguments.servers.as_deref());
    let began = Instant::now();
    let end = began + arguments.duration;
    let mut running = JoinSet::new();
    for mut worker in workers {
        let (errors, first_error) = (Arc::clone(&errors), Arc::clone(&first_error));
        running.spawn(async move {
            while Instant::now() < end
                && let Some(done) = worker.step().await
            {
                if let Err(failure) = done {
                    errors.fetch_add(1, Ordering::Relaxed);
                    first_error.lock().expect("nobody panics").get_or_insert(failure);
                }
            }
            worker
        });
    }
    let mut samples = Vec::new();
    let mut bytes = 0;
    while let Some(worker) = running.join_next().await {
        let worker = worker.expect("an operation does not panic");
        samples.extend(worker.samples);
        bytes += worker.bytes;
    }
    let seconds = began.elapsed().as_secs_f64();
    if let Some(failure) = first_error.lock().expect("nobody panics").as_ref() {
        output::note(&format!("the first error: {failure}"));
    }
    samples.sort_unstable();
    Ok(Measured {
        workload: workload(arguments),
        size: arguments.size,
        concurrency: arguments.concurrency,
        seconds,
        operations: samples.len() as u64,
        errors: errors.load(Ordering::Relaxed),
        bytes_per_second: bytes as f64 / seconds,
        operations_per_second: samples.len() as f64 / seconds,
        p50_ms: percentile(&samples, 50),
        p99_ms: percentile(&samples, 99),
        client_cpu_seconds: cpu_seconds("self").unwrap_or_default() - client_before,
        server_cpu_seconds: server_cpu_seconds(arguments.servers.as_deref())
            .and_then(|after| Some(after - servers_before?)),
    })
}

fn workload(arguments: &RunArguments) -> String {
    let weights = [("put", arguments.put), ("get", arguments.get), ("delete", arguments.delete)];
    let used: Vec<_> = weights.into_iter().filter(|(_, weight)| *weight > 0).collect();
    match used.as_slice() {
        [(name, _)] => (*name).to_owned(),
        several => {
            let parts: Vec<String> =
                several.iter().map(|(name, weight)| format!("{name}:{weight}")).collect();
            parts.join(" ")
        }
    }
}

/// The smallest sample that `percent` of all samples do not exceed, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, |sample| sample.as_secs_f64() * 1000.0)
}

/// Processor time of a process so far, its threads included.
fn cpu_seconds(pid: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn server_cpu_seconds(folder: Option<&Path>) -> Option<f64> {
    let entries = fs::read_dir(folder?).ok()?;
    let pids = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("pid")).ok());
    Some(pids.filter_map(|pid| cpu_seconds(pid.trim())).sum())
}

fn in_words(measured: &Measured) -> String {
    let servers =
        measured.server_cpu_seconds.map_or_else(String::new, |seconds| format!(", servers {seconds:.2}"));
    format!(
        "{} of {} with {} at once: {:.0} op/s, {}/s, p50 {:.2} ms, p99 {:.2} ms, {} errors in {} operations\n\
         processor seconds: client {:.2}{servers}",
        measured.workload,
        output::bytes(measured.size),
        measured.concurrency,
        measured.operations_per_second,
        output::bytes(measured.bytes_per_second as u64),
        measured.p50_ms,
        measured.p99_ms,
        measured.errors,
        measured.operations,
        measured.client_cpu_seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), 100.0);
        assert_eq!(percentile(&samples, 99), 198.0);
        assert_eq!(percentile(&samples[..1], 99), 1.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn processor_time_is_read() {
        assert!(cpu_seconds("self").is_some());
        assert!(cpu_seconds("0").is_none());
    }
}
