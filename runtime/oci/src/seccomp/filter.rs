//! From the configuration's rules to the kernel's classic BPF (Documentation/userspace-api/seccomp_filter.rst).
//!
//! The numbers of each architecture are cut into ranges to which the same happens, since most profiles allow long runs of
//! neighbours; a filter is a list of comparisons with the ranges' ends. That it is linear costs little: the kernel works out
//! at load time which calls are allowed whatever their arguments, and doesn't run the filter for those (since 5.11).

use super::ARCHITECTURES;
use crate::Error;
use crate::spec::{Action, Arg, Op, Seccomp};
use crate::syscalls::{self, Abi, X32_BIT};

/// One instruction: code, jump if true, jump if false, operand.
pub(crate) type Insn = (u16, u8, u8, u32);

/// Most instructions in a filter (`BPF_MAXINSNS`).
const MAX_INSNS: usize = 4096;
/// `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xC000_003E;
/// `AUDIT_ARCH_I386`.
const ARCH_I386: u32 = 0x4000_0003;
/// Where the call's number is, and its architecture.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

const LD: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// What happens to one call, if all conditions hold.
struct Rule {
    number: u32,
    value: u32,
    args: Vec<Arg>,
}

/// Compiles a filter. Calls of architectures that the profile doesn't name end the process.
pub(crate) fn compile(profile: &Seccomp) -> Result<Vec<Insn>, Error> {
    let refused = |reason: String| Error::Config { field: "linux.seccomp".into(), reason };
    let names = |name: &str| profile.architectures.iter().any(|a| a == name);
    let [native, x86, x32] = ARCHITECTURES.map(names);
    if !profile.architectures.is_empty() && !native && !x86 && !x32 {
        return Err(refused(format!("architectures have none of {}", ARCHITECTURES.join(", "))));
    }
    for rule in &profile.syscalls {
        if let Some(arg) = rule.args.iter().find(|a| a.index > 5) {
            return Err(refused(format!("argument {} of {:?} doesn't exist", arg.index, rule.names)));
        }
    }
    let of_64_bits = part(profile, if x32 { &[Abi::X86_64, Abi::X32] } else { &[Abi::X86_64] });
    let mut program = vec![(LD, 0, 0, ARCH_AT), (JEQ, 1, 0, ARCH_X86_64), (JA, 0, 0, of_64_bits.len() as u32)];
    program.extend(of_64_bits);
    if x86 {
        program.push((JEQ, 1, 0, ARCH_I386));
    }
    program.push((RET, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
    if x86 {
        program.extend(part(profile, &[Abi::I386]));
    }
    if program.len() > MAX_INSNS {
        return Err(refused(format!("{} instructions are more than the kernel takes ({MAX_INSNS})", program.len())));
    }
    Ok(program)
}

/// The instructions for the calls of an architecture, which return in the end.
fn part(profile: &Seccomp, abis: &[Abi]) -> Vec<Insn> {
    let mut rules = rules(profile, abis);
    // Keeps the order of those of a call: the first that matches decides.
    rules.sort_by_key(|rule| rule.number);
    let default = value_of(profile.default_action, profile.default_errno_ret);
    let mut ranges = Ranges(vec![(0, vec![(RET, 0, 0, default)])]);
    for rules in rules.chunk_by(|a, b| a.number == b.number) {
        let number = rules[0].number;
        ranges.begin(number, block(rules, default));
        ranges.begin(number + 1, vec![(RET, 0, 0, default)]);
    }
    if abis == [Abi::X86_64] {
        ranges.begin(X32_BIT, vec![(RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    }
    ranges.instructions()
}

/// The rules for calls that these architectures have.
fn rules(profile: &Seccomp, abis: &[Abi]) -> Vec<Rule> {
    let mut out = Vec::new();
    for rule in &profile.syscalls {
        let value = value_of(rule.action, rule.errno_ret);
        for name in &rule.names {
            for abi in abis {
                let args =
                    if *abi == Abi::I386 { rule.args.iter().map(of_32_bits).collect() } else { rule.args.clone() };
                out.extend(syscalls::number(*abi, name).map(|number| Rule { number, value, args }));
            }
            if abis == [Abi::I386] {
                // Like libseccomp: conditions on arguments that can't be seen are taken to hold.
                let other = syscalls::multiplexed(name);
                out.extend(other.map(|(number, arg)| Rule { number, value, args: vec![arg] }));
            }
        }
    }
    out
}

/// A condition on an argument that has but 32 bits.
fn of_32_bits(arg: &Arg) -> Arg {
    let low = |value: u64| value & u64::from(u32::MAX);
    Arg { value: low(arg.value), value_two: low(arg.value_two), ..*arg }
}

/// Ranges of calls by the number that each begins with, and what happens to them: instructions that return in the end.
struct Ranges(Vec<(u32, Vec<Insn>)>);

impl Ranges {
    /// Ends the last range before a number that isn't below its first one, and begins another there.
    fn begin(&mut self, number: u32, block: Vec<Insn>) {
        // It was to fill a gap, and there is none.
        self.0.pop_if(|(last, _)| *last == number);
        if self.0.last().is_none_or(|(_, last)| *last != block) {
            self.0.push((number, block));
        }
    }

    fn instructions(self) -> Vec<Insn> {
        let ends: Vec<u32> = self.0.iter().skip(1).map(|(number, _)| *number).collect();
        let mut out = vec![(LD, 0, 0, NUMBER_AT)];
        for (at, (_, block)) in self.0.into_iter().enumerate() {
            match (ends.get(at), u8::try_from(block.len())) {
                (Some(end), Ok(len)) => out.push((JGE, len, 0, *end)),
                (Some(end), Err(_)) => out.extend([(JGE, 0, 1, *end), (JA, 0, 0, block.len() as u32)]),
                (None, _) => {}
            }
            out.extend(block);
        }
        out
    }
}

/// What happens to one call.
fn block(rules: &[Rule], default: u32) -> Vec<Insn> {
    let mut block = Vec::new();
    for rule in rules {
        entry(&mut block, rule);
        if rule.args.is_empty() {
            return block;
        }
    }
    block.push((RET, 0, 0, default));
    block
}

/// What the filter returns for an action.
fn value_of(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno => libc::SECCOMP_RET_ERRNO | (errno.unwrap_or(libc::EPERM as u32) & 0xFFFF),
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Trace => libc::SECCOMP_RET_TRACE | (errno.unwrap_or(libc::EPERM as u32) & 0xFFFF),
        Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }
}

/// Where a comparison jumps to.
#[derive(Clone, Copy)]
enum To {
    /// The instruction after it.
    Next,
    /// Past this condition, which holds.
    Holds,
    /// Past the rule, which doesn't match.
    Fails,
}

/// Emits one rule: its conditions, then its result. At most 6 × 6 + 1 instructions, so jumps fit their byte.
fn entry(block: &mut Vec<Insn>, rule: &Rule) {
    let conditions: Vec<Vec<(u16, To, To, u32)>> = rule.args.iter().take(6).map(condition).collect();
    let mut left: usize = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    for condition in conditions {
        let len = condition.len();
        for (i, (code, jt, jf, k)) in condition.into_iter().enumerate() {
            left -= 1;
            let offset = |to| match to {
                To::Next => 0,
                To::Holds => (len - i - 1) as u8,
                To::Fails => left as u8,
            };
            block.push((code, offset(jt), offset(jf), k));
        }
    }
    block.push((RET, 0, 0, rule.value));
}

/// One comparison of a 64-bit argument, as two of 32 bits.
fn condition(arg: &Arg) -> Vec<(u16, To, To, u32)> {
    use To::{Fails, Holds, Next};
    let (low, high) = (16 + 8 * arg.index, 20 + 8 * arg.index);
    let split = |v: u64| (v as u32, (v >> 32) as u32);
    let (value_low, value_high) = split(arg.value);
    let load = |at| (LD, Next, Next, at);
    match arg.op {
        Op::Eq => vec![load(high), (JEQ, Next, Fails, value_high), load(low), (JEQ, Next, Fails, value_low)],
        Op::Ne => vec![load(high), (JEQ, Next, Holds, value_high), load(low), (JEQ, Fails, Next, value_low)],
        Op::MaskedEq => {
            let (two_low, two_high) = split(arg.value_two & arg.value);
            vec![
                load(high),
                (AND, Next, Next, value_high),
                (JEQ, Next, Fails, two_high),
                load(low),
                (AND, Next, Next, value_low),
                (JEQ, Next, Fails, two_low),
            ]
        }
        Op::Ge | Op::Gt => {
            let last = if arg.op == Op::Ge { JGE } else { JGT };
            let head = [load(high), (JGT, Holds, Next, value_high), (JEQ, Next, Fails, value_high)];
            head.into_iter().chain([load(low), (last, Next, Fails, value_low)]).collect()
        }
        Op::Lt | Op::Le => {
            let last = if arg.op == Op::Lt { JGE } else { JGT };
            let head = [load(high), (JGT, Fails, Next, value_high), (JEQ, Next, Holds, value_high)];
            head.into_iter().chain([load(low), (last, Fails, Next, value_low)]).collect()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::spec::SyscallRule;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    /// Runs a filter on a call of x86-64 as the kernel would.
    pub(in crate::seccomp) fn run(program: &[Insn], call: &str, args: [u64; 6]) -> u32 {
        run_number(program, ARCH_X86_64, syscalls::number(Abi::X86_64, call).unwrap(), args)
    }

    fn run_32(program: &[Insn], call: &str, args: [u64; 6]) -> u32 {
        run_number(program, ARCH_I386, syscalls::number(Abi::I386, call).unwrap(), args)
    }

    fn run_number(program: &[Insn], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (i, a) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&a.to_le_bytes());
        }
        let (mut a, mut at) = (0u32, 0usize);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let holds = match code {
                LD => {
                    a = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                JA => {
                    at += k as usize;
                    continue;
                }
                RET => return k,
                JEQ => a == k,
                JGT => a > k,
                JGE => a >= k,
                other => panic!("code {other}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    fn profile(default: Action, architectures: &[&str], syscalls: Vec<SyscallRule>) -> Seccomp {
        let architectures = architectures.iter().map(|a| (*a).to_owned()).collect();
        Seccomp { default_action: default, architectures, syscalls, ..Seccomp::default() }
    }

    fn rule(names: &[&str], action: Action, args: Vec<Arg>) -> SyscallRule {
        SyscallRule { names: names.iter().map(|n| (*n).to_owned()).collect(), action, errno_ret: None, args }
    }

    #[test]
    fn only_named_architectures_pass() {
        let allowed = || vec![rule(&["getpid", "ioctl"], Action::Allow, vec![])];
        let alone = compile(&profile(Action::Errno, &[], allowed())).unwrap();
        let all = compile(&profile(Action::Errno, &ARCHITECTURES, allowed())).unwrap();
        let kill = libc::SECCOMP_RET_KILL_PROCESS;
        for (arch, number, of_alone, of_all) in [
            (ARCH_X86_64, 39, ALLOW, ALLOW),
            (ARCH_X86_64, 20, EPERM, EPERM),
            (ARCH_I386, 20, kill, ALLOW),
            (ARCH_I386, 39, kill, EPERM),
            (ARCH_I386, 54, kill, ALLOW),
            (ARCH_X86_64, X32_BIT + 39, ENOSYS, ALLOW),
            (ARCH_X86_64, X32_BIT + 514, ENOSYS, ALLOW),
            (ARCH_X86_64, X32_BIT + 16, ENOSYS, EPERM),
            (ARCH_X86_64, u32::MAX, ENOSYS, EPERM),
            // ARM's.
            (0xC000_00B7, 39, kill, kill),
        ] {
            assert_eq!(run_number(&alone, arch, number, [0; 6]), of_alone, "{arch:#x} {number:#x}");
            assert_eq!(run_number(&all, arch, number, [0; 6]), of_all, "{arch:#x} {number:#x}");
        }
        // As with libseccomp, one's own is always meant, too.
        let others = compile(&profile(Action::Errno, &["SCMP_ARCH_X86"], allowed())).unwrap();
        assert_eq!(run(&others, "getpid", [0; 6]), ALLOW);
        assert!(compile(&profile(Action::Errno, &["SCMP_ARCH_ARM"], allowed())).is_err());
    }

    #[test]
    fn what_one_32_bit_call_stands_for_is_ruled_with_it() {
        let refused = vec![
            rule(&["connect", "shmget"], Action::Errno, vec![]),
            rule(&["socketcall", "ipc"], Action::Allow, vec![]),
            rule(&["bind"], Action::Errno, vec![]),
        ];
        let program = compile(&profile(Action::Allow, &["SCMP_ARCH_X86"], refused)).unwrap();
        assert_eq!(run_32(&program, "connect", [0; 6]), EPERM);
        assert_eq!(run_32(&program, "socketcall", [3, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run_32(&program, "socketcall", [2, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run_32(&program, "ipc", [23, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run_32(&program, "ipc", [0x1_0017, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run_32(&program, "ipc", [1, 0, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn arguments_of_32_bit_calls_are_compared_as_such() {
        let minus_one = Arg { index: 0, value: u64::MAX, value_two: 0, op: Op::Eq };
        let rules = vec![rule(&["personality"], Action::Allow, vec![minus_one])];
        let program = compile(&profile(Action::Errno, &["SCMP_ARCH_X86"], rules)).unwrap();
        assert_eq!(run_32(&program, "personality", [0xFFFF_FFFF, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run_32(&program, "personality", [0xFFFF_FFFE, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&program, "personality", [0xFFFF_FFFF, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&program, "personality", [u64::MAX, 0, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn ranges_say_what_the_rules_say_of_each_call() {
        let even = |n: &u32| n.is_multiple_of(2);
        for wanted in [even, |n: &u32| *n < 100, |n: &u32| *n > 100 && *n < 110, |_: &u32| true] {
            let numbers = 0..500u32;
            let mut ranges = Ranges(vec![(0, vec![(RET, 0, 0, 7)])]);
            for number in numbers.clone().filter(wanted) {
                ranges.begin(number, vec![(RET, 0, 0, 8)]);
                ranges.begin(number + 1, vec![(RET, 0, 0, 7)]);
            }
            let program = ranges.instructions();
            for number in numbers.chain([u32::MAX]) {
                let expected = if number < 500 && wanted(&number) { 8 } else { 7 };
                assert_eq!(run_number(&program, ARCH_X86_64, number, [0; 6]), expected, "{number}");
            }
        }
    }

    #[test]
    fn neighbours_share_their_instructions() {
        let mut of_all = crate::seccomp::default_profile(&[]);
        let native = compile(&of_all).unwrap().len();
        of_all.architectures = ARCHITECTURES.map(str::to_owned).to_vec();
        let all = compile(&of_all).unwrap().len();
        assert!(native < 250 && all < 1000, "{native} and {all} instructions");
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        let big = 5 | (7 << 32);
        let cases = [
            (Op::Eq, [false, true, false, false]),
            (Op::Ne, [true, false, true, true]),
            (Op::Lt, [true, false, false, true]),
            (Op::Le, [true, true, false, true]),
            (Op::Ge, [false, true, true, false]),
            (Op::Gt, [false, false, true, false]),
        ];
        for (op, expected) in cases {
            let rule = SyscallRule {
                names: vec!["read".into()],
                action: Action::Allow,
                errno_ret: None,
                args: vec![Arg { index: 2, value: big, value_two: 0, op }],
            };
            let program = compile(&Seccomp { syscalls: vec![rule], ..Seccomp::default() }).unwrap();
            for (value, expected) in [big - 1, big, big + 1, 9].into_iter().zip(expected) {
                let got = run(&program, "read", [0, 0, value, 0, 0, 0]) == libc::SECCOMP_RET_ALLOW;
                assert_eq!(got, expected, "{op:?} {value:#x}");
            }
        }
    }
}
