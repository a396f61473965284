//! The model: every state within bounds is looked at, and each guard that it lacks is missed.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBar;
use trefoil_sim::model::{Bounds, Counterexample, INVARIANTS, LANDMARKS, Mutation, Outcome, PARTS, check};

use crate::print::{bar, cpu_seconds, verdict};

/// A search that finds more different states than this is given up: it would take more memory than 2 GiB.
const DISTINCT_MAX: u64 = 10_000_000;

/// What is looked through.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asked {
    /// How many stores, 3 or 4.
    #[arg(long)]
    stores: Option<usize>,
    /// How many crashes, lost disks and cuts, instead of what each part has.
    #[arg(long)]
    failures: Option<u8>,
    /// Only this part: failover, purge or return.
    #[arg(long)]
    part: Option<String>,
    /// Take this guard away.
    #[arg(long, conflicts_with = "all_mutants")]
    mutant: Option<Mutation>,
    /// Take each guard away, one at a time.
    #[arg(long)]
    all_mutants: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct Row {
    part: &'static str,
    mutation: Option<Mutation>,
    bounds: Bounds,
    outcome: Outcome,
    cpu_seconds: f64,
}

impl Row {
    /// All looked at and nothing broken, or, of a mutant, something broken.
    fn held(&self) -> bool {
        match self.mutation {
            None => self.outcome.exhausted && self.outcome.broken.is_none(),
            Some(_) => self.outcome.broken.is_some(),
        }
    }

    fn verdict(&self) -> &'static str {
        match (&self.outcome.broken, self.outcome.exhausted) {
            (Some(found), _) => INVARIANTS[found.invariant].name,
            (None, true) => "all held",
            (None, false) => "GIVEN UP",
        }
    }
}

/// Looks through the model.
pub(crate) fn model(asked: &Asked) -> Result<ExitCode, String> {
    let parts: Vec<(&str, Bounds)> = PARTS
        .into_iter()
        .filter(|(name, _)| asked.part.as_deref().is_none_or(|only| only == *name))
        .collect();
    if parts.is_empty() {
        return Err("there is no such part; there are failover, purge and return".to_owned());
    }
    let bar = bar(DISTINCT_MAX, "states");
    let mut rows = Vec::new();
    let mutations: Vec<Mutation> = match asked.all_mutants {
        true => Mutation::ALL.to_vec(),
        false => asked.mutant.into_iter().collect(),
    };
    if mutations.is_empty() {
        for (part, bounds) in &parts {
            rows.push(look(part, bounds, None, asked, &bar)?);
        }
    }
    for mutation in mutations {
        let only = asked.part.as_deref().unwrap_or(mutation.part());
        for (part, bounds) in parts.iter().filter(|(part, _)| *part == only) {
            rows.push(look(part, bounds, Some(mutation), asked, &bar)?);
        }
    }
    bar.finish_and_clear();
    match asked.json {
        true => println!("{}", serde_json::json!(rows.iter().map(as_json).collect::<Vec<_>>())),
        false => print(&rows),
    }
    Ok(verdict(rows.iter().all(Row::held)))
}

fn look(
    part: &'static str,
    bounds: &Bounds,
    mutation: Option<Mutation>,
    asked: &Asked,
    bar: &ProgressBar,
) -> Result<Row, String> {
    let bounds = Bounds {
        stores: asked.stores.unwrap_or(bounds.stores),
        failures: asked.failures.unwrap_or(bounds.failures),
        mutation,
        ..*bounds
    };
    let began = cpu_seconds();
    let outcome = check(&bounds, &mut |progress| {
        bar.set_position(progress.distinct);
        bar.set_message(format!("{part}, depth {}", progress.depth));
        if progress.distinct < DISTINCT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let outcome = outcome.map_err(|error| error.to_string())?;
    Ok(Row { part, mutation, bounds, outcome, cpu_seconds: cpu_seconds() - began })
}

fn print(rows: &[Row]) {
    println!(
        "{:24} {:9} {:>11} {:>10} {:>6} {:>7}  verdict",
        "mutant", "part", "states", "distinct", "depth", "CPU-s"
    );
    for row in rows {
        let progress = row.outcome.progress;
        println!(
            "{:24} {:9} {:>11} {:>10} {:>6} {:>7.1}  {}",
            row.mutation.map_or("-", Mutation::name),
            row.part,
            progress.states,
            progress.distinct,
            progress.depth,
            row.cpu_seconds,
            row.verdict()
        );
    }
    if rows.iter().all(|row| row.mutation.is_none() && row.held()) {
        println!("held in every state:");
        INVARIANTS.iter().for_each(|invariant| println!("  {:22} {}", invariant.name, invariant.says));
        println!("states in which");
        for (index, landmark) in LANDMARKS.iter().enumerate() {
            println!("  {:>10} {landmark}", rows.iter().map(|row| row.outcome.landmarks[index]).sum::<u64>());
        }
    }
    for row in rows {
        if let Some(found) = &row.outcome.broken {
            trace(row, found);
        }
    }
}

fn trace(row: &Row, found: &Counterexample) {
    let name = row.mutation.map_or("the model itself", Mutation::name);
    println!("\n{name} breaks {}:", INVARIANTS[found.invariant].name);
    for (index, step) in found.steps.iter().enumerate() {
        println!("{:>4}. {step}", index + 1);
    }
    println!("      {}", found.sentence);
}

fn as_json(row: &Row) -> serde_json::Value {
    let progress = row.outcome.progress;
    let broken = row.outcome.broken.as_ref().map(|found| {
        serde_json::json!({
            "invariant": INVARIANTS[found.invariant].name, "sentence": found.sentence, "trace": found.steps,
        })
    });
    serde_json::json!({
        "mutant": row.mutation.map(Mutation::name),
        "part": row.part,
        "stores": row.bounds.stores,
        "failures": row.bounds.failures,
        "states": progress.states,
        "distinct": progress.distinct,
        "depth": progress.depth,
        "exhausted": row.outcome.exhausted,
        "cpu_seconds": row.cpu_seconds,
        "broken": broken,
    })
}
