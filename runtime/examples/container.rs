//! Runs a program in a root file system, as `docker run -i` would:
//!
//! ```sh
//! cargo run -p nuncio-runtime --example container -- /path/to/rootfs /bin/sh -c 'echo $$; id'
//! ```
//!
//! The same binary is the shim beside the container, which is how `nuncio` does it too.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nuncio_runtime::logs::Stream;
use nuncio_runtime::{
    AttachOptions, ContainerSpec, Shims, bundle, cleanup, enter_init_mounts, init, shim,
};
use tokio::io::{AsyncWriteExt, copy, stderr, stdin, stdout};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    // these three before there is any thread
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shims"] => return shim::forker::main(),
        ["shim", run_dir] => return shim::main(Path::new(run_dir)),
        ["init", ..] => return init::main(env::args_os().skip(2)),
        _ => {}
    }
    // as under `ip netns exec`, which hides cgroups
    if let Err(error) = enter_init_mounts() {
        eprintln!("enter a mount namespace with cgroups: {error}");
        return ExitCode::from(125);
    }
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(125)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(args: Vec<String>) -> Result<ExitCode> {
    let [rootfs, command @ ..] = &args[..] else {
        bail!("which root file system? usage: container ROOTFS PROGRAM [ARGS]");
    };
    let id = format!("example-{}", std::process::id());
    let run_dir = PathBuf::from("/run/nuncio-example").join(&id);
    let mut spec = ContainerSpec::new(id, rootfs, command.to_vec());
    spec.open_stdin = true;
    spec.stdin_once = true;
    let code = supervise(&run_dir, &spec).await;
    cleanup(&run_dir).context("clean up")?;
    code
}

async fn supervise(run_dir: &Path, spec: &ContainerSpec) -> Result<ExitCode> {
    bundle::write(run_dir, spec)?;
    let shim = Shims::new(env::current_exe()?).spawn(run_dir).await?;
    let everything = AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let mut attach = shim.attach(everything).await?;
    shim.start().await?;

    // ends at our end of input, or is left alone when the program ends
    tokio::spawn(async move {
        let copied = copy(&mut stdin(), &mut attach.input).await;
        copied.and(attach.input.shutdown().await)
    });
    while let Some(output) = attach.output.next().await? {
        match output.stream {
            Stream::Stdout => stdout().write_all(&output.bytes).await?,
            Stream::Stderr => stderr().write_all(&output.bytes).await?,
        }
    }
    stdout().flush().await?;
    let status = shim.wait().await?;
    Ok(ExitCode::from(u8::try_from(status.code).unwrap_or(255)))
}
