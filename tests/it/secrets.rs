//! What nodes must not know is in none of their files and nowhere in their memory.

use bytes::Bytes;
use trefoil_client::{Profile, PutOptions};
use trefoil_protocol::codec;
use trefoil_protocol::ids::{Epoch, VolumeId};
use trefoil_protocol::message::tenant::{TenantAnswer, TenantCall, TenantRequest, TenantResponse};
use trefoil_protocol::time::Millis;
use trefoil_transport::{Endpoint, Limits, Plane};

use crate::cluster::Alone;
use crate::outside::NODES;
use crate::storing::{content, key};
use crate::traces::{files, holds, pieces_of_file, pieces_of_memory};

/// The keys that the custodian gives to a tenant.
async fn keys_of(profile: Profile, custodian: std::net::SocketAddr) -> Vec<[u8; 32]> {
    let (own, trust) = (profile.own_certificate().unwrap(), profile.trust_store().unwrap());
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap(), own, trust, Limits::default()).unwrap();
    let connection = endpoint.connect(custodian, Plane::Tenant, None).await.unwrap();
    let request = TenantRequest {
        volume: VolumeId(0),
        epoch: Epoch(0),
        call: TenantCall::Keys,
        within: Millis(60_000),
    };
    let answer = connection.ask(codec::to_vec(&request).into(), Bytes::new()).await.unwrap();
    let answer: TenantResponse = codec::from_slice(&answer.body).unwrap();
    let Ok(TenantAnswer::Keys(view)) = answer else { panic!("{answer:?}") };
    view.keys.iter().map(|grant| grant.key).collect()
}

#[test]
fn r076_no_file_and_no_memory_of_a_node_holds_plaintext_or_a_key() {
    let cluster = Alone::start("secrets");
    let client = cluster.client("acme");
    let (said, marked) = (b"PLAINTEXT-MARKER-in-content-4711", "PLAINTEXT-MARKER-in-metadata-4712");
    let name = "NAME-MARKER-which-nodes-do-know-4713";
    cluster.block_on(async {
        for (number, length) in [100, 10_000, 500_000].into_iter().enumerate() {
            let mut bytes = content(number as u64, length);
            bytes[..said.len()].copy_from_slice(said);
            let at = length - said.len();
            bytes[at..].copy_from_slice(said);
            let user = [("note".to_owned(), marked.to_owned())].into();
            let key = key(format!("{name}/{number}"));
            client.put_with(&key, bytes.clone(), PutOptions { user, ..PutOptions::default() }).await.unwrap();
            assert!(client.get(&key).await.unwrap().bytes().await.unwrap() == bytes);
            client.get_range(&key, 3..70).await.unwrap().bytes().await.unwrap();
        }
        client.delete(&key(format!("{name}/0"))).await.unwrap();
    });
    let profile = Profile::load(cluster.profile("acme")).unwrap();
    let keys = cluster.block_on(keys_of(profile, cluster.custodian()));
    assert!(keys.len() >= 2, "a name key and a key that wraps");
    let mut secrets: Vec<&[u8]> = vec![said, marked.as_bytes()];
    secrets.extend(keys.iter().map(|key| key.as_slice()));

    let (mut seen, mut named) = (0, 0);
    for node in NODES {
        let pid = cluster.pid(node);
        let mut look = |piece: &[u8]| {
            for secret in &secrets {
                assert!(!holds(piece, secret), "{node} holds {:?}", String::from_utf8_lossy(secret));
            }
            named += u32::from(holds(piece, name.as_bytes()));
        };
        for path in files(&cluster.data(node), Some(pid)) {
            pieces_of_file(&path, &mut look);
        }
        seen += pieces_of_memory(pid, &mut look);
    }
    println!("{seen} bytes of memory looked at");
    assert!(seen > 1 << 20 && named > 0, "the search sees what is there: {seen} bytes, {named} names");
    cluster.nothing_panicked();
}
