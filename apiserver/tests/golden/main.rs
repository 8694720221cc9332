//! The answers of an upstream API server, asked for again here.
//!
//! A recording is a folder with `manifests.yaml`, sound objects of many kinds, and `answers-1.24.jsonl`, what a
//! kube-apiserver 1.24 answered to questions that are made of them. It is no part of this project: `SKIFF_GOLDEN` says
//! where it is, and without it there is nothing to compare.
//!
//! The same questions are asked of this server ([`questions`]), what differs from run to run is masked ([`masks`]), and
//! the answers are compared ([`compare`]). Each difference must be explained by a row of `explained.yaml`: a change of
//! upstream between 1.24 and 1.36, which is what this server follows ([`explained`]).

#[path = "../api/common.rs"]
mod common;
mod compare;
mod explained;
mod in_order;
mod masks;
mod questions;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::common::with;
use crate::explained::Explained;
use crate::questions::Answered;
use crate::report::Report;

/// The folder of the recording, if there is one.
fn recording() -> Option<PathBuf> {
    let folder = std::env::var_os("SKIFF_GOLDEN").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: SKIFF_GOLDEN does not say where the recorded answers are");
    }
    folder
}

#[tokio::test(start_paused = true)]
async fn answers_are_those_of_upstream_or_the_difference_is_explained() {
    let Some(folder) = recording() else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let expected = Answered::recorded(&read("answers-1.24.jsonl"));
    // As the recorded server had it.
    let off = ["ServiceAccount", "TaintNodesByCondition"].map(str::to_owned);
    let api = with(|config| config.disabled_admission = off.to_vec()).await;
    let answers = questions::ask_all(&api, &questions::objects(&read("manifests.yaml"))).await;
    let got: BTreeMap<&str, &Answered> = answers.iter().map(|answer| (answer.id.as_str(), answer)).collect();

    let explained = Explained::read();
    let mut report = Report::default();
    for answer in &expected {
        match got.get(answer.id.as_str()) {
            Some(got) => report.add(answer, got, &explained),
            None => report.faults.push(format!("{}: not asked", answer.id)),
        }
    }
    println!("{report}");
    let broken: Vec<String> = answers
        .iter()
        .filter(|a| a.code >= 500 && a.code != 504)
        .map(|a| format!("{} {}", a.code, a.id))
        .collect();
    assert!(broken.is_empty(), "{} questions broke the server:\n{}", broken.len(), broken.join("\n"));
    assert!(
        report.faults.is_empty(),
        "{} differences are not explained:\n{}",
        report.faults.len(),
        report.faults.join("\n")
    );
}

#[test]
fn every_explanation_says_what_it_explains_and_why() {
    assert!(Explained::read().rows() > 0);
}
