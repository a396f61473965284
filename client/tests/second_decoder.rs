//! R84: a decoder in another language, written from docs/sealed-format.md, reads what this crate seals.
//!
//! It runs where `python3` has the package `cryptography`, and says so where it does not.
#![allow(clippy::disallowed_methods, reason = "a thread feeds the other language")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use trefoil_client::entropy::Entropy;
use trefoil_client::seal::{
    Attempts, ChunkLen, Metadata, NameKey, ObjectIdentity, Sealer, TenantKey, WrapBlock, WrapCounter,
    name_hash,
};
use trefoil_client::secret::Secret;
use trefoil_protocol::ids::{TenantId, VersionId};

const DECODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/decoder/decode.py");
const OBJECTS: u32 = 1000;

struct Seeded(blake3::OutputReader);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// The fields of one case as the decoder reads them, and the line that it must answer.
struct Case {
    fields: Vec<u8>,
    answer: String,
}

fn case(number: u32, entropy: &mut Seeded, counter: &mut WrapCounter) -> Case {
    let (tenant, key_bytes) = (TenantId(entropy.below(u64::MAX)), [number as u8; 32]);
    let key = TenantKey::new(tenant, 1, Secret::copy_of(&key_bytes));
    let name = name_hash(&NameKey::new(Secret::copy_of(&[7; 32])), &number.to_be_bytes());
    let mut version = VersionId([0; 16]);
    entropy.fill(&mut version.0);
    let mut attempts = Attempts::new(ObjectIdentity { tenant, name, version });
    for _ in 0..entropy.below(3) {
        attempts.begin(entropy);
    }
    let chunk_len = ChunkLen::new(1024 + entropy.below(5000) as u32).expect("within bounds");
    let longest = [1, u64::from(chunk_len.get()) + 1, 40_000][entropy.below(3) as usize];
    let mut plaintext = vec![0; entropy.below(longest + 1) as usize];
    entropy.fill(&mut plaintext);

    let begun = Sealer::begin(attempts.begin(entropy), &key, counter, chunk_len).expect("counters are left");
    let (mut sealer, mut sealed, mut rest) = (begun.sealer, begun.header.to_vec(), &plaintext[..]);
    while !rest.is_empty() {
        sealed.extend(sealer.push(&mut rest).expect("few chunks").iter().flatten());
    }
    let mut padding = if entropy.below(2) == 0 { sealer.padding_wanted() } else { 0 };
    while padding > 0 {
        sealed.extend(sealer.push_padding(&mut padding).expect("few chunks").iter().flatten());
    }
    let end = sealer.finish();
    sealed.extend_from_slice(&end.last);
    let user =
        BTreeMap::from([("number".to_owned(), number.to_string()), ("maß".to_owned(), "x".repeat(300))]);
    let metadata = Metadata { plaintext_len: end.plaintext_len, created_ms: 1_700_000_000_000, user };
    let sealed_metadata = end.metadata.seal(&metadata).expect("short metadata");

    let number = number.to_string();
    let mut fields = Vec::new();
    for field in
        [&key_bytes[..], number.as_bytes(), begun.wrapped.as_bytes(), &sealed, sealed_metadata.as_bytes()]
    {
        fields.extend_from_slice(&(field.len() as u32).to_be_bytes());
        fields.extend_from_slice(field);
    }
    let sha256: String = Sha256::digest(&plaintext).iter().map(|byte| format!("{byte:02x}")).collect();
    let pairs = metadata.user.iter().map(|(k, v)| format!("\"{k}\": \"{v}\"")).collect::<Vec<_>>().join(", ");
    let answer = format!(
        "{{\"case\": \"{number}\", \"sha256\": \"{sha256}\", \"metadata\": [{}, {}, {{{pairs}}}]}}",
        metadata.plaintext_len, metadata.created_ms
    );
    Case { fields, answer }
}

#[test]
fn r084_a_second_decoder_reads_a_thousand_random_objects() {
    let probe = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: python3 with the package `cryptography` is not here");
        return;
    }
    let mut counter = WrapCounter::new(WrapBlock { key_version: 1, instance: 9, start: 0, end: 4000 })
        .expect("a sound block");
    let mut entropy = Seeded::new(84);
    let cases: Vec<Case> = (0..OBJECTS).map(|number| case(number, &mut entropy, &mut counter)).collect();

    let mut decoder = Command::new("python3")
        .arg(DECODER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 was there a moment ago");
    let mut stdin = decoder.stdin.take().expect("a pipe was asked for");
    let input: Vec<u8> = cases.iter().flat_map(|case| case.fields.iter().copied()).collect();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = decoder.wait_with_output().expect("the decoder ends");
    writer.join().expect("the writer ends").expect("the decoder reads everything");
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).expect("the decoder answers in UTF-8");
    assert_eq!(answers.lines().count(), cases.len());
    for (answer, case) in answers.lines().zip(&cases) {
        assert_eq!(answer, case.answer);
    }
}
