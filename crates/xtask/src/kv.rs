//! A small client for a dev lattice: one operation of the contract through one node.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::dev_state::DevState;

#[derive(Args)]
pub struct KvArguments {
    /// The file that `dev-lattice --keep` has written
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The node to talk to: A, B or C
    #[arg(long, default_value = "A")]
    node: String,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand)]
enum Operation {
    /// Read a text
    Get { key: String },
    /// Write a text, for ever or for some seconds
    Set {
        key: String,
        value: String,
        #[arg(long, default_value_t = 0)]
        expires: u32,
    },
    /// Is there a key of any type?
    Contains { key: String },
    /// Delete a key of any type
    Del { key: String },
    /// Add to a number
    #[command(allow_negative_numbers = true)]
    Incr {
        key: String,
        #[arg(default_value_t = 1)]
        by: i32,
    },
    /// Append to a list
    ListAdd { list: String, value: String },
    /// Items from start to stop, both included; negative ones count from the end
    #[command(allow_negative_numbers = true)]
    ListRange {
        list: String,
        #[arg(default_value_t = 0)]
        start: i32,
        #[arg(default_value_t = -1)]
        stop: i32,
    },
    /// Remove the first equal item
    ListDel { list: String, value: String },
    /// Delete a list
    ListClear { list: String },
    /// Add a member to a set
    SetAdd { set: String, member: String },
    /// Remove a member from a set
    SetDel { set: String, member: String },
    /// The members of a set
    SetQuery { set: String },
    /// The members of any of the sets
    SetUnion { sets: Vec<String> },
    /// The members of all of the sets
    SetIntersection { sets: Vec<String> },
    /// Delete a set
    SetClear { set: String },
    /// What every node says about itself
    Health,
}

pub async fn run(arguments: KvArguments) -> Result<()> {
    let state = DevState::load(&arguments.state.unwrap_or_else(DevState::default_path))?;
    if matches!(arguments.operation, Operation::Health) {
        return print_health(&state).await;
    }
    let kv = state.keyvalue(state.node(&arguments.node)?).await?;
    match arguments.operation {
        Operation::Get { key } => match kv.get(&key).await? {
            Some(value) => println!("{value}"),
            None => println!("(no such key)"),
        },
        Operation::Set { key, value, expires } => {
            kv.set_for(&key, &value, expires).await?;
            println!("done");
        }
        Operation::Contains { key } => println!("{}", kv.contains(&key).await?),
        Operation::Del { key } => println!("{}", kv.del(&key).await?),
        Operation::Incr { key, by } => println!("{}", kv.increment(&key, by).await?),
        Operation::ListAdd { list, value } => println!("{}", kv.list_add(&list, &value).await?),
        Operation::ListRange { list, start, stop } => print_lines(kv.list_range(&list, start, stop).await?),
        Operation::ListDel { list, value } => println!("{}", kv.list_del(&list, &value).await?),
        Operation::ListClear { list } => println!("{}", kv.list_clear(&list).await?),
        Operation::SetAdd { set, member } => println!("{}", kv.set_add(&set, &member).await?),
        Operation::SetDel { set, member } => println!("{}", kv.set_del(&set, &member).await?),
        Operation::SetQuery { set } => print_lines(kv.set_query(&set).await?),
        Operation::SetUnion { sets } => print_lines(kv.set_union(&as_strs(&sets)).await?),
        Operation::SetIntersection { sets } => print_lines(kv.set_intersection(&as_strs(&sets)).await?),
        Operation::SetClear { set } => println!("{}", kv.set_clear(&set).await?),
        Operation::Health => unreachable!("answered above"),
    }
    Ok(())
}

async fn print_health(state: &DevState) -> Result<()> {
    for node in &state.nodes {
        match state.status(node).await {
            Ok(status) => println!("{}  node={} {status}", node.name, status.node),
            Err(error) => println!("{}  {error:#}", node.name),
        }
    }
    Ok(())
}

fn print_lines(lines: Vec<String>) {
    for line in lines {
        println!("{line}");
    }
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}
