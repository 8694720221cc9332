//! `skiff image`: the images of a node's own store, on the node itself.

use std::path::{Path, PathBuf};

use base::{Clock, Tasks};
use clap::{Args, Subcommand};
use runtime::image::Images;

use super::print;
use crate::Failure;
use crate::failure::Because;
use crate::output::table::aligned;
use crate::roles::node_stores;

#[derive(Args, Debug)]
pub(crate) struct ImageCommand {
    /// The cluster's directory
    #[arg(long, value_name = "DIR", default_value = crate::roles::DATA_DIR, env = "SKIFF_DATA_DIR", global = true)]
    data_dir: PathBuf,
    /// The node, where there are several; all of them if none is named
    #[arg(long, value_name = "NAME", global = true)]
    node: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// List images
    #[command(visible_alias = "list")]
    Ls,
    /// Fetch an image from its registry
    Pull { reference: String },
    /// Take images from an archive as `docker save` or `skiff image save` writes it
    Load { archive: PathBuf },
    /// Write images to an archive
    Save {
        #[arg(required = true)]
        references: Vec<String>,
        /// The file to write
        #[arg(long, short = 'o')]
        output: PathBuf,
    },
    /// Give an image another name
    Tag { source: String, target: String },
    /// Remove images with all their names
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Remove the images that no container uses
    Prune,
}

impl ImageCommand {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let stores = node_stores(&self.data_dir)?;
        let chosen: Vec<(String, PathBuf)> = stores
            .into_iter()
            .filter(|(name, _)| self.node.as_ref().is_none_or(|wanted| wanted == name))
            .collect();
        if let (true, Verb::Save { references, output }) = (chosen.is_empty(), &self.verb) {
            return save_built_in(references, output).await;
        }
        if chosen.is_empty() {
            return Err(Failure::new(format!(
                "error: there is no node in {}: is the cluster running here? start it with `skiff up`",
                self.data_dir.display()
            )));
        }
        let several = chosen.len() > 1;
        for (node, root) in chosen {
            let tasks = Tasks::new("image");
            let images = open(&root, &tasks)?;
            if several {
                print(format!("node {node}:\n"))?;
            }
            one(&images, &self.verb).await?;
        }
        Ok(())
    }
}

/// The images made of this binary can be had before there is a node: another runtime needs them by then.
async fn save_built_in(references: &[String], output: &Path) -> Result<(), Failure> {
    let store = tempfile::tempdir().because("error: temporary directory")?;
    let tasks = Tasks::new("image");
    open(store.path(), &tasks)?.save(references, output).await.because("error")
}

fn open(root: &Path, tasks: &Tasks) -> Result<Images, Failure> {
    let executable = std::env::current_exe().because("error: own executable")?;
    Images::open(root, &executable, Clock::system(), tasks.clone()).because("error")
}

async fn one(images: &Images, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls => {
            let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned).to_vec()];
            for image in images.list() {
                let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
                let row = |name: &str, tag: &str| {
                    vec![name.to_owned(), tag.to_owned(), id.clone(), size(image.size)]
                };
                if image.repo_tags.is_empty() {
                    rows.push(row("<none>", "<none>"));
                }
                for reference in &image.repo_tags {
                    let (name, tag) = reference.rsplit_once(':').unwrap_or((reference, "<none>"));
                    rows.push(row(name, tag));
                }
            }
            print(aligned(&rows))
        }
        Verb::Pull { reference } => {
            let image = images.pull(reference, None).await.because("error")?;
            print(format!("{}\n", image.id))
        }
        Verb::Load { archive } => {
            for image in images.load(archive).await.because("error")? {
                let names =
                    if image.repo_tags.is_empty() { image.id.clone() } else { image.repo_tags.join(" ") };
                print(format!("Loaded image: {names}\n"))?;
            }
            Ok(())
        }
        Verb::Save { references, output } => images.save(references, output).await.because("error"),
        Verb::Tag { source, target } => images.tag(source, target).await.because("error"),
        Verb::Rm { references } => {
            for reference in references {
                if images.resolve(reference).is_none() {
                    return Err(Failure::new(format!("error: no such image: {reference}")));
                }
                images.remove(reference).await.because("error")?;
                print(format!("Deleted: {reference}\n"))?;
            }
            Ok(())
        }
        Verb::Prune => {
            for id in images.prune().await.because("error")? {
                print(format!("Deleted: {id}\n"))?;
            }
            Ok(())
        }
    }
}

/// A size in decimal units with three figures.
fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 1000.0 {
            return if unit == "B" || amount >= 100.0 {
                format!("{amount:.0}{unit}")
            } else {
                format!("{amount:.1}{unit}")
            };
        }
        amount /= 1000.0;
    }
    format!("{amount:.1}TB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_few_figures() {
        for (bytes, text) in [(5, "5B"), (1500, "1.5kB"), (123_456_789, "123MB"), (2_000_000_000, "2.0GB")] {
            assert_eq!(super::size(bytes), text);
        }
    }
}
