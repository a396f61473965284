//! A put and a get through six storage nodes and a control plane, as separate processes on this
//! machine: everything a client waits for.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;
use trefoil_client::{Client, Profile};
use trefoil_protocol::key::ObjectKey;

use crate::scratch::Scratch;

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// `trefoil dev`, ended with this value.
struct Cluster {
    scratch: Scratch,
    process: Child,
}

impl Cluster {
    fn start() -> Self {
        let scratch = Scratch::new("cluster");
        let process = Command::new(env!("CARGO_BIN_EXE_trefoil"))
            .args(["dev", "--data"])
            .arg(&scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program was built");
        let cluster = Self { scratch, process };
        let began = Instant::now();
        while !cluster.scratch.0.join("ready").exists() {
            assert!(began.elapsed() < START_TIME_MAX, "the cluster is not ready after {START_TIME_MAX:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    fn client(&self, runtime: &Runtime) -> Client {
        let profile = Profile::load(self.scratch.0.join("tenants/acme.toml")).expect("dev wrote it");
        runtime.block_on(Client::connect(profile)).expect("connects")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its children end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn put_and_get(c: &mut Criterion) {
    let cluster = Cluster::start();
    let runtime = Runtime::new().expect("a runtime");
    let client = cluster.client(&runtime);
    let mut group = c.benchmark_group("cluster");
    group.sample_size(10);
    for (name, bytes) in [("4 KiB", 4 << 10), ("1 MiB", 1 << 20)] {
        let payload = Bytes::from(vec![0x5A; bytes]);
        let key = ObjectKey::new(format!("bench/{bytes}")).expect("a key");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("put {name}, three copies on disk"), |b| {
            b.iter(|| runtime.block_on(client.put(&key, payload.clone())).expect("stored"));
        });
        group.bench_function(format!("get {name}"), |b| {
            b.iter(|| {
                let read = runtime.block_on(async { client.get(&key).await?.bytes().await });
                assert_eq!(read.expect("read").len(), bytes);
            });
        });
    }
    group.finish();
}
