//! The one mapping from secret names to environment variables, and the one list of variables no secret may become.

use crate::name::SecretName;

/// The variable a secret becomes: `prefix`, then the name in upper case with every character other than
/// `A-Z 0-9 _` replaced by `_`; a leading digit of the whole gets `_` before it.
#[must_use]
pub fn variable_name(prefix: &str, name: &SecretName) -> String {
    let mut variable = String::with_capacity(prefix.len() + name.as_str().len() + 1);
    variable.push_str(prefix);
    variable.extend(name.as_str().chars().map(|character| match character.to_ascii_uppercase() {
        upper if upper.is_ascii_uppercase() || upper.is_ascii_digit() => upper,
        _ => '_',
    }));
    if variable.starts_with(|first: char| first.is_ascii_digit()) {
        variable.insert(0, '_');
    }
    variable
}

/// Whether a text can be the name of a variable in every shell (POSIX.1-2017, 3.235 "Name").
#[must_use]
pub fn is_variable_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A kind of variable that no secret may become, because whoever sets it changes which code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forbidden {
    /// What such variables do, as the end of a sentence that begins with the variable's name.
    pub reason: &'static str,
    names: &'static [&'static str],
    prefixes: &'static [&'static str],
}

/// The forbidden variables by what they steer: what glibc ignores in secure mode (ld.so(8)), what sudo removes
/// (`initial_badenv_table` of its sources), and the hooks of shells, language run-times, TLS, git, sudo and D-Bus.
const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        reason: "steers the dynamic loader or the C library",
        names: &[
            "GCONV_PATH",
            "GETCONF_DIR",
            "GLIBC_TUNABLES",
            "HOSTALIASES",
            "LOCALDOMAIN",
            "LOCPATH",
            "NIS_PATH",
            "NLSPATH",
            "RESOLV_HOST_CONF",
            "RES_OPTIONS",
            "TMPDIR",
            "TZDIR",
            "LIBPATH",
            "SHLIB_PATH",
            "SASL_PATH",
            "GCC_EXEC_PREFIX",
            "COMPILER_PATH",
            "LIBRARY_PATH",
            "AUTHSTATE",
        ],
        prefixes: &["LD_", "LDR_", "DYLD_", "MALLOC_", "_RLD"],
    },
    Forbidden {
        reason: "steers which programs a shell finds or runs",
        names: &[
            "BASH_ENV",
            "BASHOPTS",
            "CDPATH",
            "ENV",
            "FPATH",
            "GLOBIGNORE",
            "HOME",
            "IFS",
            "LOGNAME",
            "NULLCMD",
            "PATH",
            "PROMPT_COMMAND",
            "PS1",
            "PS2",
            "PS3",
            "PS4",
            "PWD",
            "OLDPWD",
            "READNULLCMD",
            "TMPPREFIX",
            "INPUTRC",
            "EXINIT",
            "VIMINIT",
            "MYVIMRC",
            "SHELL",
            "SHELLOPTS",
            "USER",
            "ZDOTDIR",
            "EDITOR",
            "VISUAL",
            "PAGER",
            "MANPAGER",
            "LESSOPEN",
            "LESSCLOSE",
            "LESSKEY",
            "BROWSER",
            "TERM",
            "TERMCAP",
            "TERMINFO",
            "TERMINFO_DIRS",
            "TERMPATH",
            "PATH_LOCALE",
        ],
        prefixes: &["BASH_FUNC_"],
    },
    Forbidden {
        reason: "steers what a language run-time loads",
        names: &[
            "CLASSPATH",
            "JAVA_HOME",
            "JAVA_OPTS",
            "MAVEN_OPTS",
            "GRADLE_OPTS",
            "JAVA_TOOL_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "_JAVA_OPTIONS",
            "NODE_OPTIONS",
            "NODE_PATH",
            "NODE_REPL_EXTERNAL_MODULE",
            "ELECTRON_RUN_AS_NODE",
            "PERL5DB",
            "PERL5LIB",
            "PERL5OPT",
            "PERLLIB",
            "PERLIO_DEBUG",
            "PERL_MB_OPT",
            "PERL_MM_OPT",
            "RUBYLIB",
            "RUBYOPT",
            "RUBYSHELL",
            "GEM_HOME",
            "GEM_PATH",
            "BUNDLE_GEMFILE",
            "LUA_CPATH",
            "LUA_INIT",
            "LUA_PATH",
            "ERL_AFLAGS",
            "ERL_FLAGS",
            "ERL_LIBS",
            "ERL_ZFLAGS",
            "PHP_INI_SCAN_DIR",
            "PHPRC",
            "R_PROFILE",
            "R_PROFILE_USER",
            "R_ENVIRON",
            "R_ENVIRON_USER",
            "R_LIBS",
            "R_LIBS_USER",
            "JULIA_LOAD_PATH",
            "JULIA_DEPOT_PATH",
            "OCAMLRUNPARAM",
            "CAML_LD_LIBRARY_PATH",
            "GHCRTS",
            "TCLLIBPATH",
            "GUILE_LOAD_PATH",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTDOC",
            "CARGO_HOME",
            "GOENV",
            "GOROOT",
            "RUSTFLAGS",
            "GOFLAGS",
            "MAKEFLAGS",
            "OPENCL_VENDOR_PATH",
            "VK_LAYER_PATH",
        ],
        prefixes: &[
            "PYTHON",
            "DOTNET_",
            "COR_",
            "CORECLR_",
            "COMPLUS_",
            "NPM_CONFIG_",
            "LUA_INIT_",
            "LUA_PATH_",
            "LUA_CPATH_",
        ],
    },
    Forbidden {
        reason: "steers whom TLS trusts or where the network goes",
        names: &[
            "CURL_CA_BUNDLE",
            "AWS_CA_BUNDLE",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "GNUTLS_SYSTEM_PRIORITY_FILE",
            "GIT_SSL_NO_VERIFY",
            "NODE_EXTRA_CA_CERTS",
            "NODE_TLS_REJECT_UNAUTHORIZED",
            "OPENSSL_CONF",
            "OPENSSL_CONF_INCLUDE",
            "OPENSSL_ENGINES",
            "OPENSSL_MODULES",
            "REQUESTS_CA_BUNDLE",
            "SSLKEYLOGFILE",
            "SSL_CERT_DIR",
            "SSL_CERT_FILE",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "FTP_PROXY",
            "RSYNC_PROXY",
            "NO_PROXY",
        ],
        prefixes: &[],
    },
    Forbidden {
        reason: "steers what git or ssh runs",
        names: &["SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "SSH_AUTH_SOCK"],
        prefixes: &["GIT_"],
    },
    Forbidden {
        reason: "steers sudo, Kerberos, D-Bus, systemd or a desktop session",
        names: &[
            "DBUS_SESSION_BUS_ADDRESS",
            "DBUS_STARTER_ADDRESS",
            "DBUS_SYSTEM_BUS_ADDRESS",
            "DISPLAY",
            "KRB5CCNAME",
            "KRB5_KTNAME",
            "KRBCONFDIR",
            "KRBTKFILE",
            "LISTEN_FDNAMES",
            "LISTEN_FDS",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
            "CREDENTIALS_DIRECTORY",
            "WAYLAND_DISPLAY",
            "XAUTHORITY",
            "GTK_MODULES",
            "GTK_PATH",
            "QT_PLUGIN_PATH",
            "GIO_EXTRA_MODULES",
            "GDK_PIXBUF_MODULE_FILE",
            "GST_PLUGIN_PATH",
            "LIBGL_DRIVERS_PATH",
            "GNUPGHOME",
            "USR_ACE",
            "VAR_ACE",
            "DLC_ACE",
        ],
        prefixes: &["SUDO_", "XDG_", "KRB5_CONFIG"],
    },
    Forbidden { reason: "steers pds itself", names: &[], prefixes: &["PDS_"] },
];

/// Whether no secret may become this variable, and why; upper and lower case count as one, since some readers
/// of such variables take either.
#[must_use]
pub fn forbidden(variable: &str) -> Option<Forbidden> {
    let upper = variable.to_ascii_uppercase();
    FORBIDDEN.iter().copied().find(|class| {
        class.names.contains(&upper.as_str()) || class.prefixes.iter().any(|prefix| upper.starts_with(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(prefix: &str, name: &str, expected: &str) {
        assert_eq!(variable_name(prefix, &SecretName::parse(name).unwrap()), expected);
    }

    #[test]
    fn names_become_variables_by_the_documented_rule() {
        check("", "api-key", "API_KEY");
        check("", "db/password.main", "DB_PASSWORD_MAIN");
        check("", "9lives", "_9LIVES");
        check("APP_", "9lives", "APP_9LIVES");
        check("", "_x", "_X");
    }

    #[test]
    fn loader_shell_and_run_time_variables_are_forbidden() {
        for variable in [
            "LD_PRELOAD",
            "ld_preload",
            "GLIBC_TUNABLES",
            "BASH_ENV",
            "BASH_FUNC_LS",
            "PATH",
            "PYTHONPATH",
            "_JAVA_OPTIONS",
            "GIT_SSH_COMMAND",
            "OPENSSL_CONF",
            "DOTNET_STARTUP_HOOKS",
            "SUDO_ASKPASS",
            "DBUS_SESSION_BUS_ADDRESS",
            "PDS_PROFILE",
            "NODE_OPTIONS",
            "PERL5OPT",
            "RUBYOPT",
            "IFS",
        ] {
            assert!(forbidden(variable).is_some(), "{variable}");
        }
        for variable in [
            "PGPASSWORD",
            "API_KEY",
            "DATABASE_URL",
            "AWS_SECRET_ACCESS_KEY",
            "LDAP_PASSWORD",
            "GITHUB_TOKEN",
        ] {
            assert!(forbidden(variable).is_none(), "{variable}");
        }
    }

    /// `unsecvars.h` of glibc 2.41 and `initial_badenv_table` of sudo 1.9, with a name for each pattern.
    #[test]
    fn what_glibc_ignores_in_secure_mode_and_what_sudo_removes_is_forbidden() {
        let glibc = "GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_BIND_NOT LD_BIND_NOW LD_DEBUG \
            LD_DEBUG_OUTPUT LD_DYNAMIC_WEAK LD_LIBRARY_PATH LD_ORIGIN_PATH LD_PRELOAD LD_PROFILE LD_SHOW_AUXV \
            LD_VERBOSE LD_WARN LOCALDOMAIN LOCPATH MALLOC_ARENA_MAX MALLOC_ARENA_TEST MALLOC_MMAP_MAX_ \
            MALLOC_MMAP_THRESHOLD_ MALLOC_PERTURB_ MALLOC_TOP_PAD_ MALLOC_TRACE MALLOC_TRIM_THRESHOLD_ NIS_PATH \
            NLSPATH RESOLV_HOST_CONF RES_OPTIONS TMPDIR TZDIR";
        let sudo = "IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE LD_X _RLD_X SHLIB_PATH LDR_X \
            LIBPATH AUTHSTATE DYLD_X KRB5_CONFIG KRB5_CONFIG_X KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE TERMINFO \
            TERMINFO_DIRS TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS JAVA_TOOL_OPTIONS \
            PERLIO_DEBUG PERLLIB PERL5LIB PERL5OPT PERL5DB FPATH NULLCMD READNULLCMD ZDOTDIR TMPPREFIX PYTHONHOME \
            PYTHONPATH PYTHONINSPECT PYTHONUSERBASE RUBYLIB RUBYOPT";
        let hooks = "DOTNET_STARTUP_HOOKS COR_PROFILER CORECLR_PROFILER COMPLUS_X NODE_OPTIONS JDK_JAVA_OPTIONS \
            GIT_SSH_COMMAND GIT_EXTERNAL_DIFF SSL_CERT_FILE OPENSSL_CONF SSLKEYLOGFILE RUSTC_WRAPPER";
        for variable in [glibc, sudo, hooks].into_iter().flat_map(str::split_whitespace) {
            assert!(forbidden(variable).is_some(), "{variable}");
        }
    }

    proptest! {
        #[test]
        fn every_secret_name_becomes_a_variable_name(text in "[A-Za-z0-9._/-]{1,40}") {
            if let Ok(name) = SecretName::parse(text) {
                prop_assert!(is_variable_name(&variable_name("", &name)));
            }
        }
    }
}
