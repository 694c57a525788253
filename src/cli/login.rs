//! `login` and `logout`.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::credentials::{Account, Credentials, host_of, server_of};
use super::output::{line, warn, write_out};
use super::terminal::without_echo;
use crate::client::Client;

/// Flags of `login`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio login
  pass registry | nuncio login -u me --password-stdin localhost:5000")]
pub(super) struct LoginArgs {
    /// The account's name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// Its password, or a token in its place; others may see it here
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,

    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,

    /// The registry (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Flags of `logout`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio logout localhost:5000")]
pub(super) struct LogoutArgs {
    /// The registry (default: Docker Hub)
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Asks the registry whether it takes the account, and keeps it.
pub(super) async fn login(args: LoginArgs, client: &Client) -> anyhow::Result<u8> {
    let server = server(args.server.as_deref());
    let mut credentials = Credentials::load()?;
    let nobody_is_named = args.username.is_none() && args.password.is_none();
    if nobody_is_named
        && !args.password_stdin
        && let Some(known) = credentials.get(&server)?
    {
        let name = &known.username;
        line(&format!(
            "Authenticating with existing credentials... [Username: {name}]"
        ))?;
        match check(client, &server, &known).await {
            Ok(_) => return succeeded("Login Succeeded"),
            Err(error) => warn(&format!("Login did not succeed, error: {error:#}")),
        }
    }
    let mut account = ask(&args)?;
    let answer = check(client, &server, &account).await?;
    if !answer.identity_token.is_empty() {
        account.password.clear();
        account.identity_token = answer.identity_token;
    }
    if credentials.store(&server, &account)? {
        warn(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            credentials.path().display()
        ));
    }
    succeeded(&answer.status)
}

fn succeeded(status: &str) -> anyhow::Result<u8> {
    line(status)?;
    Ok(0)
}

fn server(given: Option<&str>) -> String {
    server_of(given.map_or("", host_of)).to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    status: String,
    #[serde(default)]
    identity_token: String,
}

async fn check(client: &Client, server: &str, account: &Account) -> anyhow::Result<Answer> {
    let body = json!({
        "username": account.username,
        "password": account.password,
        "identitytoken": account.identity_token,
        "serveraddress": server,
    });
    let answer = client.post("/auth").json(&body).send().await?;
    Ok(answer.json().await?)
}

/// The account as the flags, standard input or the terminal give it.
fn ask(args: &LoginArgs) -> anyhow::Result<Account> {
    if args.password.is_some() && args.password_stdin {
        bail!("conflicting options: cannot specify both --password and --password-stdin");
    }
    if args.password_stdin && args.username.is_none() {
        bail!("the --password-stdin option requires --username to be set");
    }
    let may_ask = || {
        if std::io::stdin().is_terminal() {
            return Ok(());
        }
        bail!("cannot perform an interactive login from a non TTY device")
    };
    let username = match &args.username {
        Some(name) => name.clone(),
        None => {
            may_ask()?;
            prompt("Username: ")?
        }
    };
    let password = match &args.password {
        Some(password) => {
            warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password.clone()
        }
        None if args.password_stdin => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.context("read the password from standard input")?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => {
            may_ask()?;
            let password = without_echo(|| prompt("Password: "))?;
            line("")?;
            password?
        }
    };
    if username.is_empty() || password.is_empty() {
        bail!("username and password must not be empty");
    }
    Ok(Account {
        username,
        password,
        ..Account::default()
    })
}

fn prompt(text: &str) -> anyhow::Result<String> {
    write_out(text.as_bytes())?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.context("read the answer")?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// Forgets the account at a registry.
pub(super) fn logout(args: &LogoutArgs) -> anyhow::Result<u8> {
    let server = server(args.server.as_deref());
    line(&format!(
        "Removing login credentials for {}",
        host_of(&server)
    ))?;
    Credentials::load()?.erase(&server)?;
    Ok(0)
}
