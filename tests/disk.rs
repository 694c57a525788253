//! What takes room on the disk, and giving it back, from the real docker client and from nuncio.

mod support;

use support::{Client, Image, single};

#[test]
fn df_tells_what_takes_room() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "--name",
        "box",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "head -c 3000000 /dev/zero >/big; head -c 2000000 /dev/zero >/data/x",
    ]);
    for client in Client::ALL {
        let ok = |words: &[&str]| client.ok(&host, words);
        let shown = ok(&["system", "df"]);
        let row = |kind: &str| {
            let row = shown.lines().find(|line| line.starts_with(kind));
            row.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(row("Images")[1..3], ["1", "1"], "{shown}");
        assert_eq!(
            row("Containers")[1..],
            ["1", "0", "3MB", "3MB", "(100%)"],
            "{shown}"
        );
        assert_eq!(
            row("Local")[2..],
            ["1", "1", "2MB", "0B", "(0%)"],
            "{shown}"
        );
        assert_eq!(row("Build")[2..], ["0", "0", "0B", "0B"], "{shown}");
        let format = "{{.Type}}={{.TotalCount}}";
        assert!(ok(&["system", "df", "--format", format]).contains("Local Volumes=1"));
        assert_eq!(
            ok(&["ps", "-as", "--format", "{{.Size}}"])
                .split(' ')
                .next(),
            Some("3MB")
        );
        assert_eq!(
            ok(&["inspect", "-s", "-f", "{{.SizeRw}}", "box"]),
            "3000000"
        );
        let verbose = ok(&["system", "df", "-v"]);
        for words in [
            "Images space usage:",
            "Containers space usage:",
            "Local Volumes space usage:",
            "data",
            "3MB",
        ] {
            assert!(verbose.contains(words), "{words}: {verbose}");
        }
        let last = verbose.lines().last().unwrap_or_default();
        let header = last.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = "CACHE ID CACHE TYPE SIZE CREATED LAST USED USAGE SHARED";
        assert_eq!(header, expected, "{verbose}");
        let table = ok(&["system", "df", "-v", "--format", "table"]);
        assert!(table.starts_with("Images space usage:"), "{table}");
        let details = ok(&["system", "df", "-v", "--format", "json"]);
        assert_eq!(details.lines().count(), 1, "{details}");
        let details: serde_json::Value = serde_json::from_str(&details).expect("JSON");
        assert_eq!(details["Images"][0]["Containers"], "1");
        assert_eq!(details["Containers"][0]["Size"], "3MB");
        assert_eq!(details["Volumes"][0]["Links"], "1");
        assert_eq!(details["BuildCache"], serde_json::json!([]));
        let format = "{{range .Volumes}}{{.Name}} {{.Size}}{{end}}";
        assert_eq!(ok(&["system", "df", "-v", "--format", format]), "data 2MB");
        let refused = client.run(&host, "system df -v --format {{").refused(1);
        assert!(refused.contains("template parsing error"), "{refused}");
    }
}

#[test]
fn prunes_take_what_nothing_needs() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let ok = |words: &str| client.ok(&host, words);
        ok("run -d --name runs --label keep busybox sleep 1000");
        ok("run --name ended --label a=b busybox sh -c true");
        ok("run --name other busybox head -c 1000000 /etc/passwd");
        assert_eq!(
            ok("container prune -f --filter until=24h"),
            "Total reclaimed space: 0B"
        );
        let pruned = ok("container prune -f --filter label=a=b");
        assert!(pruned.starts_with("Deleted Containers:\n"), "{pruned}");
        assert_eq!(ok("ps -a --format {{.Names}}").lines().count(), 2);

        host.ok([
            "run",
            "--name",
            "writer",
            "-v",
            "/anonymous",
            "busybox",
            "sh",
            "-c",
            "head -c 4000000 /dev/zero >/big; head -c 1000000 /dev/zero >/anonymous/x",
        ]);
        ok("network create --label a=b idle");
        assert_eq!(ok("network prune -f --filter label=a=c"), "");
        let pruned = ok("network prune -f --filter label=a=b");
        assert!(pruned.starts_with("Deleted Networks:\nidle"), "{pruned}");
        ok("network create unused");
        ok("volume create named");
        let asked = client.run(&host, "system prune");
        assert!(
            asked.stdout.contains("WARNING! This will remove:"),
            "{asked:?}"
        );
        assert_eq!(
            ok("network ls -q --filter name=unused").lines().count(),
            1,
            "nobody said yes"
        );
        let pruned = ok("system prune -f --volumes");
        for words in [
            "Deleted Containers:",
            "Deleted Networks:\nunused",
            "Deleted Volumes:",
            "Total reclaimed space: 5MB",
        ] {
            assert!(pruned.contains(words), "{words}: {pruned}");
        }
        assert_eq!(ok("ps -a --format {{.Names}}"), "runs");
        assert_eq!(ok("volume ls -q"), "named");
        ok("rm -f runs");
        let pruned = ok("system prune -af");
        assert!(pruned.contains("untagged: busybox:latest"), "{pruned}");
        assert_eq!(ok("images -q"), "");
        ok("volume rm named");
        host.load(Image::Busybox);
    }
}
