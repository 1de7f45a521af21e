//! The recipes for web servers, as they stand in `examples/` but for ports and paths: the real server
//! gets from nothing to https by the commands in the recipe's own comment, and through a renewal.
//! A server that is not installed is skipped by name, unless GETCRT_TESTS is `all`.

use crate::support::prelude::*;
use crate::support::{is_root, is_skipped, is_skipped_without_ipv6, kill, program};
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::thread::sleep;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;

/// The names in the recipes.
const NAMES: [&str; 2] = ["example.org", "www.example.org"];
const PAGE: &str = "this is the page\n";

/// How a server takes a new certificate, when it is asked as Debian's unit for it asks.
enum Reload<'a> {
    Signal(&'a str),
    Run(&'a dyn Fn() -> Command),
    /// The recipe restarts it.
    Never,
}

/// A recipe, and a setup that its server is to serve.
struct Site {
    example: &'static str,
    recipe: String,
    setup: Setup<Pebble>,
    http: u16,
    https: u16,
    server: Option<Server>,
}

impl Site {
    /// A site by this recipe; nothing where one of the `needed` programs is missing.
    fn by(example: &'static str, needed: &[&str]) -> Option<Site> {
        let needed: Vec<&str> = needed.iter().chain(&["curl"]).copied().collect();
        let what = format!("examples/{example}");
        if is_skipped(&what, &needed) || is_skipped_without_ipv6(&what) {
            return None;
        }
        let directory = directory();
        let path = |name: &str| directory.path().join(name);
        // The servers become other users, who must be able to read what root made under any umask.
        for name in ["tls", "www", "www/html", "www/acme-challenge"] {
            fs::create_dir(path(name)).unwrap();
            set_mode(&path(name), 0o755);
        }
        fs::write(path("www/html/a page.txt"), PAGE).unwrap();
        set_mode(&path("www/html/a page.txt"), 0o644);
        let (http, https) = (free_port(), free_port());
        let setup = Setup::with_pebble_and_web(directory, Web::elsewhere(http));
        setup.csr("/", &NAMES);
        let site = Site {
            example,
            recipe: text(&Path::new("examples").join(example)),
            setup,
            http,
            https,
            server: None,
        };
        Some(site.with(&[("/etc/getcrt/", "{root}/"), ("/var/www/", "{root}/www/")]))
    }

    /// All that is changed in a recipe: what stands left, by what stands right. Each is there.
    fn with(mut self, substitutions: &[(&str, &str)]) -> Site {
        for (theirs, ours) in substitutions {
            let is_there = self.recipe.contains(theirs);
            assert!(is_there, "{} lacks {theirs}", self.example);
            self.recipe = self.recipe.replace(theirs, &self.filled(ours));
        }
        self
    }

    /// A text with this site's paths and ports in it.
    fn filled(&self, text: &str) -> String {
        text.replace(
            "{root}",
            self.setup.path("").to_str().unwrap().trim_end_matches('/'),
        )
        .replace("{http}", &self.http.to_string())
        .replace("{https}", &self.https.to_string())
        .replace("{user}", if is_root() { "" } else { "#" })
    }

    /// A configuration that has the recipe in it where `{recipe}` stands.
    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.setup.path(name);
        let content = self.filled(content).replace("{recipe}", &self.recipe);
        fs::write(&path, content).unwrap();
        set_mode(&path, 0o644);
        path
    }

    /// The commands in the recipe's comment.
    fn commands(&self) -> Vec<String> {
        let indented = |line: &str| line.strip_prefix("#     ").map(str::to_owned);
        self.recipe.lines().filter_map(indented).collect()
    }

    /// Does what the recipe says, in its order, and sees what a visitor sees.
    fn comes_to_https(mut self, unit: &str, start: impl Fn() -> Command, reload: &Reload) {
        let commands = self.commands();
        let [.., fetch, refresh] = &commands[..] else {
            panic!("no commands in {}", self.example)
        };
        for command in &commands {
            self.follow(command, unit, &start, reload);
            if command.starts_with("systemctl ") && command != refresh {
                // Only a server that was told of the new certificate may show it.
                let visit = self.visit("https", "127.0.0.1", "/");
                visit.check(&self.log(), visit.status.code() == Some(60));
            }
        }
        self.is_served();
        let first = served(self.https);
        self.follow(fetch, unit, &start, reload);
        assert_eq!(served(self.https), first, "it came without a reload");
        self.follow(refresh, unit, &start, reload);
        self.is_served();
        assert_ne!(served(self.https), first);
    }

    /// One command of the recipe.
    fn follow(&mut self, command: &str, unit: &str, start: &impl Fn() -> Command, reload: &Reload) {
        if let Some(arguments) = command.strip_prefix("getcrt ") {
            self.fetches(arguments);
        } else if command == format!("systemctl restart {unit}") {
            self.server = None;
            self.starts(start());
        } else if command == format!("systemctl reload {unit}") {
            let server = self.server.as_ref().unwrap();
            match reload {
                Reload::Signal(name) => assert!(kill(name, server.0.id())),
                Reload::Run(command) => {
                    let status = command().stderr(Stdio::null()).status().unwrap();
                    assert!(status.success(), "{}", self.log());
                }
                Reload::Never => panic!("{} is not to be reloaded", self.example),
            }
        } else if !command.starts_with("a2en") {
            // What a2enmod loads, Apache's test loads, too. Only root gives files away.
            assert!(!command.starts_with("systemctl "), "{command}");
            let ours = if is_root() { "caddy" } else { "$(id -g)" };
            let command = command.replace("chgrp caddy", &format!("chgrp {ours}"));
            Run::of("sh").args(&["-c", &command]).outcome().exits(0);
        }
    }

    /// getcrt as the recipe calls it, with what a private CA needs beside.
    fn fetches(&self, arguments: &str) {
        let bundle = &https().root;
        let run = self.setup.resolving(Run::getcrt());
        let outcome = run
            .args(&arguments.split(' ').collect::<Vec<_>>())
            .args(&["--directory-url", &self.setup.ca.directory_url()])
            .args(&["--check-port", &self.http.to_string()])
            .args(&["--ca-bundle", bundle.to_str().unwrap()])
            .outcome();
        let log = self.log();
        outcome
            .check(&log, outcome.status.success())
            .says_not("warning:")
            .check("stdout is not empty", outcome.stdout.is_empty())
            .check(
                "the end is another",
                outcome.stderr.ends_with("\nCertificate signed!\n"),
            );
        self.setup
            .verify_pem(&text(&self.setup.path("tls/domain.crt")), &NAMES);
        assert_eq!(listing(&self.setup.path("www/acme-challenge")), [""; 0]);
    }

    /// Starts the server, and waits until it takes connections at both ports.
    fn starts(&mut self, mut command: Command) {
        let log = fs::File::create(self.setup.path("server.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut server = Server(command.spawn().unwrap());
        for port in [self.http, self.https] {
            let started = Instant::now();
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                let is_up = server.0.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE;
                assert!(is_up, "{command:?}\n{}", self.log());
                sleep(Duration::from_millis(10));
            }
        }
        self.server = Some(server);
    }

    /// What the server said.
    fn log(&self) -> String {
        fs::read_to_string(self.setup.path("server.log")).unwrap_or_default()
    }

    /// The certificate in the file is served, with a page, and plain http leads there.
    fn is_served(&self) {
        let chain = fs::read(self.setup.path("tls/domain.crt")).unwrap();
        let leaf = X509::stack_from_pem(&chain).unwrap()[0].to_pem().unwrap();
        // After a reload the old processes of a server may still take a connection or two.
        await_that("the new certificate", || {
            (0..20).all(|_| served(self.https).as_ref() == Some(&leaf))
        });
        for address in ["127.0.0.1", "[::1]"] {
            for name in NAMES {
                let page = self.visit_as(name, "https", address, "/a%20page.txt?a=b&c=%20d");
                page.exits(0)
                    .check(&self.log(), page.stdout == format!("{PAGE}200 "));
                let page = self.visit_as(name, "http", address, "/a%20page.txt?a=b&c=%20d");
                let there = format!("301 https://{name}/a%20page.txt?a=b&c=%20d");
                page.exits(0).check(&there, page.stdout.ends_with(&there));
            }
            // A challenge that is not there is so by http too, and no redirect.
            let none = self.visit("http", address, "/.well-known/acme-challenge/none");
            none.exits(0).check("no 404", none.stdout.ends_with("404 "));
        }
    }

    fn visit(&self, scheme: &str, address: &str, path: &str) -> Outcome {
        self.visit_as(NAMES[0], scheme, address, path)
    }

    /// A visit by curl, which trusts Pebble's root alone and takes our ports for 80 and 443. On its
    /// stdout are the page, the status and where a redirect leads.
    fn visit_as(&self, name: &str, scheme: &str, address: &str, path: &str) -> Outcome {
        let root = self.setup.fetch_root();
        let http = format!("{name}:80:{address}:{}", self.http);
        let https = format!("{name}:443:{address}:{}", self.https);
        Run::of("curl")
            .args(&[
                "--silent",
                "--show-error",
                "--cacert",
                root.to_str().unwrap(),
            ])
            .args(&["--connect-to", &http, "--connect-to", &https])
            .args(&["--write-out", "%{http_code} %{redirect_url}"])
            .arg(format!("{scheme}://{name}{path}"))
            .outcome()
    }
}

/// The certificate that is shown at a port, if any is.
fn served(port: u16) -> Option<Vec<u8>> {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let connection = builder.build().connect(NAMES[0], connection).ok()?;
    Some(connection.ssl().peer_certificate()?.to_pem().unwrap())
}

#[test]
fn nginx() {
    let Some(site) = Site::by("nginx.conf", &["nginx"]) else {
        return;
    };
    let site = site.with(&[
        ("listen 80;", "listen 127.0.0.1:{http};"),
        ("listen [::]:80;", "listen [::1]:{http};"),
        ("listen 443 ssl;", "listen 127.0.0.1:{https} ssl;"),
        ("listen [::]:443 ssl;", "listen [::1]:{https} ssl;"),
    ]);
    let main = site.write(
        "nginx.conf",
        "daemon off; {user}user www-data;
        pid {root}/nginx.pid; error_log stderr;
        events {}
        http {
            access_log off;
            {recipe}
        }",
    );
    let start = || {
        let mut nginx = Command::new(program("nginx").unwrap());
        nginx.arg("-c").arg(&main);
        nginx
    };
    site.comes_to_https("nginx.service", start, &Reload::Signal("HUP"));
}

/// The commands of the README's six steps, typed in their order.
#[test]
fn the_six_steps_of_the_readme() {
    let Some(site) = Site::by("nginx.conf", &["nginx"]) else {
        return;
    };
    let mut site = site.with(&[
        ("listen 80;", "listen 127.0.0.1:{http};"),
        ("listen [::]:80;", "listen [::1]:{http};"),
        ("listen 443 ssl;", "listen 127.0.0.1:{https} ssl;"),
        ("listen [::]:443 ssl;", "listen [::1]:{https} ssl;"),
    ]);
    let site_file = site.write("recipe.conf", "{recipe}");
    let main = site.write(
        "nginx.conf",
        "daemon off; {user}user www-data;
        pid {root}/nginx.pid; error_log stderr;
        events {}
        http {
            access_log off;
            include {root}/nginx/sites-enabled/*;
        }",
    );
    for folder in ["nginx/sites-available", "nginx/sites-enabled", "units"] {
        fs::create_dir_all(site.setup.path(folder)).unwrap();
    }
    // A user that is there, and can run what the tests have built, takes the place of the new one.
    let getcrt = site.setup.path("getcrt");
    fs::copy(GETCRT, &getcrt).unwrap();
    let (owner, runuser) = match is_root() {
        true => (
            "nobody:",
            "setpriv --reuid=nobody --regid=nogroup --clear-groups ",
        ),
        false => ("$(id -u):$(id -g)", ""),
    };
    let options = format!(
        " --directory-url {} --check-port {} --ca-bundle {} ",
        site.setup.ca.directory_url(),
        site.http,
        site.setup.path("ca.pem").display(),
    );
    let substitutions = [
        (
            "examples/nginx.conf",
            site_file.to_str().unwrap().to_owned(),
        ),
        ("/etc/nginx/", site.filled("{root}/nginx/")),
        ("/etc/getcrt", site.filled("{root}")),
        ("/var/www/", site.filled("{root}/www/")),
        ("/etc/systemd/system/", site.filled("{root}/units/")),
        ("chown -R getcrt:", format!("chown -R {owner}")),
        (
            "runuser -u getcrt -- getcrt ",
            format!("{runuser}{}{options}", getcrt.display()),
        ),
    ];
    let section = crate::readme::section("Six steps to https");
    let commands = section.split("```sh\n").skip(1);
    let commands: Vec<&str> = commands
        .flat_map(|block| block.split("```").next().unwrap().lines())
        .collect();
    assert!(commands.len() >= 14, "{commands:#?}");
    for (theirs, _) in &substitutions {
        assert!(section.contains(theirs), "the README lacks {theirs}");
    }
    for command in commands {
        match command {
            "systemctl restart nginx.service" => {
                let mut nginx = Command::new(program("nginx").unwrap());
                nginx.arg("-c").arg(&main);
                site.starts(nginx);
            }
            "systemctl reload nginx.service" => {
                assert!(kill("HUP", site.server.as_ref().unwrap().0.id()));
            }
            "useradd --system --user-group getcrt" | "systemctl daemon-reload" => {}
            command if command.starts_with("systemctl enable --now ") => {
                for unit in command.split(' ').skip(3) {
                    assert!(site.setup.path("units").join(unit).exists(), "{unit}");
                }
            }
            command => {
                let typed = substitutions
                    .iter()
                    .fold(command.to_owned(), |text, (theirs, ours)| {
                        text.replace(theirs, ours)
                    });
                let run = site.setup.resolving(Run::of("sh").args(&["-c", &typed]));
                run.outcome().exits(0);
            }
        }
    }
    site.setup
        .verify_pem(&text(&site.setup.path("tls/domain.crt")), &NAMES);
    site.is_served();
}

/// Debian's modules of Apache that `module` depends on, and itself.
fn apache_modules(module: &str) -> Vec<String> {
    let load = format!("/etc/apache2/mods-available/{module}.load");
    let content = text(Path::new(&load));
    let depends = content
        .lines()
        .find_map(|line| line.strip_prefix("# Depends: "));
    let depends = depends.unwrap_or_default().split_whitespace();
    let mut loads: Vec<String> = depends.flat_map(apache_modules).collect();
    loads.push(format!(
        "Include {load}\nIncludeOptional {}\n",
        load.replace(".load", ".conf")
    ));
    loads
}

#[test]
fn apache() {
    let Some(site) = Site::by("apache.conf", &["apache2"]) else {
        return;
    };
    let site = site.with(&[("*:80>", "*:{http}>"), ("*:443>", "*:{https}>")]);
    // What Debian enables by itself, and what the recipe does.
    let mut modules: Vec<String> = [
        "mpm_event",
        "authz_core",
        "alias",
        "dir",
        "mime",
        "setenvif",
    ]
    .map(str::to_owned)
    .to_vec();
    for command in site.commands() {
        if let Some(names) = command.strip_prefix("a2enmod ") {
            modules.extend(names.split(' ').map(str::to_owned));
        }
    }
    let mut loads: Vec<String> = modules
        .iter()
        .flat_map(|module| apache_modules(module))
        .collect();
    let mut seen = BTreeSet::new();
    loads.retain(|load| seen.insert(load.clone()));
    let main = "ServerRoot {root}\nDefaultRuntimeDir {root}\nPidFile {root}/apache.pid\nServerName localhost
        ErrorLog {root}/server.log\n{user}User www-data\n{user}Group www-data
        Listen 127.0.0.1:{http}\nListen [::1]:{http}\nListen 127.0.0.1:{https}\nListen [::1]:{https}
        <Directory />\nRequire all denied\n</Directory>
        <Directory {root}/www>\nRequire all granted\n</Directory>\n{recipe}";
    let main = site.write("apache2.conf", &format!("{}{main}", loads.concat()));
    let start = || {
        let mut apache = Command::new(program("apache2").unwrap());
        apache.env("APACHE_RUN_DIR", main.parent().unwrap());
        apache.args(["-D", "FOREGROUND", "-f"]).arg(&main);
        apache
    };
    site.comes_to_https("apache2.service", start, &Reload::Signal("USR1"));
}

#[test]
fn caddy() {
    let Some(site) = Site::by("Caddyfile", &["caddy"]) else {
        return;
    };
    let admin = free_port();
    let site = site.with(&[
        (
            "auto_https off",
            &format!("auto_https off\n\tadmin 127.0.0.1:{admin}"),
        ),
        ("http://example.org,", "http://example.org:{http},"),
        (
            "http://www.example.org {",
            "http://www.example.org:{http} {\n\tbind 127.0.0.1 ::1",
        ),
        ("https://example.org,", "https://example.org:{https},"),
        (
            "https://www.example.org {",
            "https://www.example.org:{https} {\n\tbind 127.0.0.1 ::1",
        ),
    ]);
    let file = site.write("Caddyfile", "{recipe}");
    let home = site.setup.path("home");
    fs::create_dir(&home).unwrap();
    set_mode(&home, 0o777);
    let caddy = |arguments: &[&str]| {
        // It is a user of its own from the start.
        let mut caddy = Command::new(if is_root() { "setpriv" } else { "env" });
        if is_root() {
            caddy.args(["--reuid=caddy", "--regid=caddy", "--clear-groups"]);
        }
        caddy
            .arg("caddy")
            .args(arguments)
            .args(["--config", file.to_str().unwrap()]);
        caddy
            .env("HOME", &home)
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME");
        caddy
    };
    let start = || caddy(&["run"]);
    let reload = || caddy(&["reload", "--force"]);
    site.comes_to_https("caddy.service", start, &Reload::Run(&reload));
}

#[test]
fn lighttpd() {
    let module = "../lib/lighttpd/mod_openssl.so";
    let Some(site) = Site::by("lighttpd.conf", &["lighttpd", module]) else {
        return;
    };
    let site = site.with(&[
        ("\":443\"", "\"127.0.0.1:{https}\""),
        ("\"[::]:443\"", "\"[::1]:{https}\""),
    ]);
    // As in Debian's own.
    let main = site.write(
        "lighttpd.conf",
        "server.modules = ( \"mod_indexfile\", \"mod_access\", \"mod_alias\", \"mod_redirect\" )
        server.document-root = \"/nonexistent\"
        {user}server.username = \"www-data\"
        {user}server.groupname = \"www-data\"
        server.bind = \"127.0.0.1\"
        server.port = {http}
        $SERVER[\"socket\"] == \"[::1]:{http}\" { }
        server.http-parseopts = (
            \"header-strict\" => \"enable\", \"host-strict\" => \"enable\", \"host-normalize\" => \"enable\",
            \"url-normalize-unreserved\" => \"enable\", \"url-normalize-required\" => \"enable\",
            \"url-ctrls-reject\" => \"enable\", \"url-path-2f-decode\" => \"enable\",
            \"url-path-dotseg-remove\" => \"enable\"
        )
        url.access-deny = ( \"~\", \".inc\" )
        {recipe}
        alias.url += ( \"/javascript/\" => \"/usr/share/javascript/\" )
        server.modules += ( \"mod_dirlisting\", \"mod_staticfile\" )\n",
    );
    let start = || {
        let mut lighttpd = Command::new(program("lighttpd").unwrap());
        lighttpd.arg("-D").arg("-f").arg(&main);
        lighttpd
    };
    site.comes_to_https("lighttpd.service", start, &Reload::Never);
}

#[test]
fn haproxy() {
    let Some(site) = Site::by("haproxy.cfg", &["haproxy"]) else {
        return;
    };
    let page = |request: &Request| {
        let is_page = request.path.starts_with("/a%20page.txt");
        is_page.then(|| response("200 OK", PAGE.as_bytes()))
    };
    let web = Web::answering(&site.setup.path("www/acme-challenge"), Box::new(page));
    let site = site.with(&[
        ("bind :80\n", "bind 127.0.0.1:{http}\n"),
        ("bind [::]:80 ", "bind [::1]:{http} "),
        ("bind :443 ", "bind 127.0.0.1:{https} "),
        ("bind [::]:443 ", "bind [::1]:{https} "),
        ("127.0.0.1:8080", &format!("127.0.0.1:{}", web.port)),
    ]);
    // As in Debian's own.
    let file = site.write(
        "haproxy.cfg",
        "global
        {user}chroot /var/lib/haproxy
        {user}user haproxy
        {user}group haproxy
        defaults
        mode http
        timeout connect 5000
        timeout client 50000
        timeout server 50000
{recipe}",
    );
    let start = || {
        let mut haproxy = Command::new(program("haproxy").unwrap());
        haproxy.arg("-W").arg("-f").arg(&file);
        haproxy
    };
    site.comes_to_https("haproxy.service", start, &Reload::Signal("USR2"));
}
