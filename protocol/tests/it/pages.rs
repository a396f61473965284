//! docs/wire-format.md tells the truth: its byte tables, limits and message tables against the code.

use std::collections::BTreeSet;
use std::fmt::Write;

use trefoil_protocol::codec;
use trefoil_protocol::deletion::{
    CERTIFIED_STORES_MAX, DeletionCertificate, EraseReceipt, PURGE_ITEMS_MAX, PurgeOrder, SIGNATURES_MAX,
};
use trefoil_protocol::frame::{BODY_BYTES_MAX, BULK_BYTES_MAX, FRAME_LAYOUT};
use trefoil_protocol::key::ObjectKey;
use trefoil_protocol::layout::Layout;
use trefoil_protocol::message::REASON_MAX;
use trefoil_protocol::message::peer::{ORPHANS_MAX, PAYLOAD_LEAVES_MAX};
use trefoil_protocol::message::tenant::{CERTIFICATES_MAX, LEAF_RANGES_MAX, PAGE_BYTES_MAX, PAGE_MAX};
use trefoil_protocol::record::{
    BODY_MAX, ERASABLE_MAX, HEADER_LAYOUT, INLINE_MAX, METADATA_MAX, WRAPPED_MAX,
};
use trefoil_protocol::sign::Statement;
use trefoil_protocol::tree::SIBLINGS_MAX;

use crate::draw::{Draw, Source};
use crate::shapes::{Case, Shape, Visit, every};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md");
    std::fs::read_to_string(path).expect("docs/wire-format.md is there")
}

/// The cells of a table's row; none for any other line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// What stands between backticks in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The rows of the tables below a heading.
fn rows<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    let section = section.split("\n#").next().unwrap_or_default();
    section.lines().filter_map(cells).collect()
}

fn check_layout(heading: &str, layout: &Layout) {
    let page = page();
    let stated: Vec<(String, usize, usize)> = rows(&page, heading)
        .into_iter()
        .filter_map(|row| Some((row.get(2)?.replace(' ', "_"), row[0].parse().ok()?, row[1].parse().ok()?)))
        .collect();
    let ends = layout.fields.iter().skip(1).map(|(_, offset)| *offset).chain([layout.length]);
    let actual: Vec<_> =
        layout.fields.iter().zip(ends).map(|((name, at), end)| (name.to_string(), *at, end - at)).collect();
    assert_eq!(stated, actual, "{heading}");
}

#[test]
fn the_byte_tables_are_those_of_the_code() {
    check_layout("## Frames", &FRAME_LAYOUT);
    check_layout("## Records", &HEADER_LAYOUT);
}

#[test]
fn the_limits_are_those_of_the_code() {
    let actual = [
        ("BODY_BYTES_MAX", BODY_BYTES_MAX as usize),
        ("BULK_BYTES_MAX", BULK_BYTES_MAX as usize),
        ("DEPTH_MAX", codec::DEPTH_MAX),
        ("INLINE_MAX", INLINE_MAX as usize),
        ("METADATA_MAX", METADATA_MAX),
        ("WRAPPED_MAX", WRAPPED_MAX),
        ("ERASABLE_MAX", ERASABLE_MAX),
        ("BODY_MAX", BODY_MAX),
        ("KEY_BYTES_MAX", ObjectKey::LENGTH_MAX),
        ("REASON_MAX", REASON_MAX),
        ("STATUS_VOLUMES_MAX", trefoil_protocol::message::admin::STATUS_VOLUMES_MAX),
        ("BACKUP_PART_MAX", trefoil_protocol::message::admin::BACKUP_PART_MAX),
        ("HOLDINGS_MAX", trefoil_protocol::message::holdings::HOLDINGS_MAX),
        ("OPEN_ORDERS_MAX", trefoil_protocol::message::holdings::OPEN_ORDERS_MAX),
        ("LOSS_PAGE_MAX", trefoil_protocol::message::loss::LOSS_PAGE_MAX),
        ("LISTED_MAX", trefoil_protocol::loss_list::LISTED_MAX),
        ("COMPARE_POINTS_MAX", trefoil_protocol::message::loss::COMPARE_POINTS_MAX),
        ("LOSS_STORES_MAX", trefoil_protocol::message::loss::LOSS_STORES_MAX),
        ("PROPOSAL_REASON_MAX", trefoil_protocol::message::approval::PROPOSAL_REASON_MAX),
        ("PAGE_MAX", PAGE_MAX as usize),
        ("PAGE_BYTES_MAX", PAGE_BYTES_MAX),
        ("CERTIFICATES_MAX", CERTIFICATES_MAX),
        ("LEAF_RANGES_MAX", LEAF_RANGES_MAX),
        ("PAYLOAD_LEAVES_MAX", PAYLOAD_LEAVES_MAX),
        ("ORPHANS_MAX", ORPHANS_MAX),
        ("PURGE_ITEMS_MAX", PURGE_ITEMS_MAX),
        ("CERTIFIED_STORES_MAX", CERTIFIED_STORES_MAX),
        ("SIGNATURES_MAX", SIGNATURES_MAX),
        ("SIBLINGS_MAX", SIBLINGS_MAX),
    ];
    let page = page();
    let stated: Vec<(&str, usize)> = rows(&page, "### Limits")
        .into_iter()
        .filter_map(|row| Some((*quoted(row[0]).first()?, row[1].parse().ok()?)))
        .collect();
    assert_eq!(stated, actual);
}

#[test]
fn the_domains_are_those_of_the_code() {
    let page = page();
    for (paper, domain) in [
        ("PurgeOrder", PurgeOrder::DOMAIN),
        ("EraseReceipt", EraseReceipt::DOMAIN),
        ("DeletionCertificate", DeletionCertificate::DOMAIN),
        ("BackupStatement", trefoil_protocol::backup::BackupStatement::DOMAIN),
        ("LossStatement", trefoil_protocol::loss_list::LossStatement::DOMAIN),
    ] {
        assert!(page.contains(&format!("\n| `{paper}` | `{domain}` |")), "{paper}");
    }
}

/// The beginning of each row that the page must have: name, number and fields.
#[derive(Default)]
struct Rows(BTreeSet<String>);

impl Rows {
    fn add(&mut self, name: &str, number: &str, fields: &[&str]) {
        let mut row = format!("{name} #{number}");
        for (number, field) in fields.iter().enumerate() {
            write!(row, ", {number} {field}").expect("a text grows");
        }
        assert!(self.0.insert(row), "{name} stands twice");
    }
}

impl Visit for Rows {
    fn visit<T: Shape + Draw>(&mut self, _: &'static str) {
        if let [Case { name, fields }] = T::CASES
            && *name == T::NAME
        {
            return self.add(name, "", fields);
        }
        for (index, case) in T::CASES.iter().enumerate() {
            let bytes = codec::to_vec(&T::case(index, Source::golden()));
            // Alone a number, otherwise a pair of a number and its fields; all numbers are below 24.
            let number = if bytes.len() == 1 { bytes[0] } else { bytes[1] };
            self.add(&format!("{}::{}", T::NAME, case.name), &number.to_string(), case.fields);
        }
    }
}

#[test]
fn the_message_tables_name_every_field_and_variant_with_its_number() {
    let mut actual = Rows::default();
    every(&mut actual);
    let mut stated = Rows::default();
    let page = page();
    let tables = page.split("\n\n").filter(|text| text.starts_with("| name | number | fields |"));
    for row in tables.flat_map(str::lines).skip(2).filter_map(cells) {
        let &[name, number, fields, ..] = row.as_slice() else { continue };
        if let [name] = quoted(name)[..] {
            let fields = quoted(fields);
            let numbered = fields.iter().enumerate().map(|(place, field)| {
                let (number, field) = field.split_once(' ').expect("a number and a name");
                assert_eq!(number, place.to_string(), "{name}: fields stand in their order");
                field
            });
            stated.add(name, number, &numbered.collect::<Vec<_>>());
        }
    }
    let missing: Vec<_> = actual.0.difference(&stated.0).collect();
    let stale: Vec<_> = stated.0.difference(&actual.0).collect();
    assert!(missing.is_empty() && stale.is_empty(), "missing: {missing:#?}, not in the code: {stale:#?}");
}
