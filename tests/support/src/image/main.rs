//! `image`: puts the statically linked program into an image, without a container engine.

mod product;
mod sbom;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rehome_testing::oci::{Architecture, Program};

use source::Source;

/// Write an image of Rehome as an OCI archive, with its SBOM beside it
#[derive(Parser)]
#[command(name = "image", version)]
struct Arguments {
    /// The program, linked statically
    program: PathBuf,
    /// The folder for the archive and the SBOM
    output: PathBuf,
    /// The repository that the image will be pulled from
    #[arg(long, default_value = "ghcr.io/rehome-dev/rehome")]
    repository: String,
    /// The tag; that of the version by default
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// How many bytes a node may have to keep of it
    #[arg(long)]
    at_most: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = Source::of(&checkout)?;
    let program = Program::read(&arguments.program)?;
    let target = match program.architecture {
        Architecture::Amd64 => "x86_64-unknown-linux-gnu",
        Architecture::Arm64 => "aarch64-unknown-linux-gnu",
    };
    let sbom = sbom::spdx(&checkout, "rehome", target, &source)?;
    let name = format!("{}:{}", arguments.repository, arguments.tag);
    let image = product::image(&name, program, &sbom, &checkout.join("LICENSE"), &source)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot create {}", arguments.output.display()))?;
    let sbom_file = arguments.output.join("rehome.spdx.json");
    std::fs::write(&sbom_file, format!("{sbom:#}\n"))?;
    let archive = arguments.output.join("rehome.tar");
    let written = image.write(&archive)?;
    println!("{name} {}", written.digest);
    println!(
        "{}, {}, commit {}",
        image.architecture.name(),
        target,
        source.revision
    );
    println!(
        "{} bytes to fetch, {} unpacked",
        written.compressed, written.unpacked
    );
    println!("{}\n{}", archive.display(), sbom_file.display());
    if let Some(limit) = arguments.at_most {
        ensure!(
            written.unpacked < limit,
            "the image has {} bytes and may have {limit}: see what has grown",
            written.unpacked
        );
    }
    Ok(())
}
