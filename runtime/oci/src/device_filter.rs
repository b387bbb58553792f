//! Device filter of a cgroup: a small eBPF program (`BPF_PROG_TYPE_CGROUP_DEVICE`, Documentation/bpf/prog_cgroup_sysctl
//! has the siblings; `struct bpf_cgroup_dev_ctx` in include/uapi/linux/bpf.h). It is the guard that makes device nodes
//! in a container harmless, so what isn't allowed is denied.

use crate::Error;
use crate::plan::refused;
use crate::spec::DeviceRule;

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// Most rules.
const MAX_RULES: usize = 256;

/// One rule, checked. `None`: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// Kind, major, minor and access; `None`: any.
type Allowed = (Option<u32>, Option<u32>, Option<u32>, u32);

/// Always allowed: the nodes that every container has, pseudo terminals, and making (not opening) any node.
const ALWAYS: [Allowed; 10] = [
    (Some(CHAR), Some(1), Some(3), 7),
    (Some(CHAR), Some(1), Some(5), 7),
    (Some(CHAR), Some(1), Some(7), 7),
    (Some(CHAR), Some(1), Some(8), 7),
    (Some(CHAR), Some(1), Some(9), 7),
    (Some(CHAR), Some(5), Some(0), 7),
    (Some(CHAR), Some(5), Some(2), 7),
    (Some(CHAR), Some(136), None, 7),
    (Some(CHAR), None, None, MKNOD),
    (Some(BLOCK), None, None, MKNOD),
];

/// The program for these rules, as 8-byte instructions; `None`: everything is allowed.
pub(crate) fn compile(rules: &[DeviceRule]) -> Result<Option<Vec<u64>>, Error> {
    if rules.len() > MAX_RULES {
        return Err(refused("linux.resources.devices", format!("more than {MAX_RULES} rules")));
    }
    let mut checked = rules.iter().map(check).collect::<Result<Vec<_>, _>>()?;
    // Later rules win, so they are asked first; the nodes of every container are allowed whatever they say.
    checked.extend(ALWAYS.map(|(kind, major, minor, access)| Rule { allow: true, kind, major, minor, access }));
    checked.reverse();
    let all = |r: &Rule| r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.access == 7;
    let decisive = checked.iter().position(all);
    if let Some(at) = decisive {
        if checked[at].allow && checked[..at].iter().all(|r| r.allow) {
            return Ok(None);
        }
        checked.truncate(at + 1);
    }
    Ok(Some(assemble(&checked)))
}

fn check(rule: &DeviceRule) -> Result<Rule, Error> {
    let wrong = |what: &str| refused("linux.resources.devices", format!("{what} in {rule:?}"));
    let kind = match rule.kind.as_deref() {
        None | Some("a" | "") => None,
        Some("b") => Some(BLOCK),
        Some("c" | "u") => Some(CHAR),
        Some(_) => return Err(wrong("type other than a, b, c")),
    };
    let number = |n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| wrong("impossible number")),
    };
    let mut access = 0;
    for letter in rule.access.as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(wrong("access other than r, w, m")),
        };
    }
    Ok(Rule { allow: rule.allow, kind, major: number(rule.major)?, minor: number(rule.minor)?, access })
}

/// An instruction: code, destination and source register, offset, immediate.
fn insn(code: u8, dst: u8, src: u8, offset: i16, imm: u32) -> u64 {
    u64::from(code) | u64::from(dst | src << 4) << 8 | u64::from(offset as u16) << 16 | u64::from(imm) << 32
}

/// Registers: r1 context, r2 type, r3 access, r4 major, r5 minor.
fn assemble(rules: &[Rule]) -> Vec<u64> {
    const LDX_W: u8 = 0x61;
    const AND32: u8 = 0x54;
    const RSH32: u8 = 0x74;
    const MOV32_REG: u8 = 0xbc;
    const MOV64: u8 = 0xb7;
    const JNE: u8 = 0x55;
    const EXIT: u8 = 0x95;
    // access_type is (access << 16) | type.
    let mut program = vec![
        insn(LDX_W, 2, 1, 0, 0),
        insn(MOV32_REG, 3, 2, 0, 0),
        insn(AND32, 2, 0, 0, 0xFFFF),
        insn(RSH32, 3, 0, 0, 16),
        insn(LDX_W, 4, 1, 4, 0),
        insn(LDX_W, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests: Vec<Vec<(u8, u8, u8, u32)>> = Vec::new();
        for (register, value) in [(2, rule.kind), (4, rule.major), (5, rule.minor)] {
            if let Some(value) = value {
                tests.push(vec![(JNE, register, 0, value)]);
            }
        }
        if rule.access != 7 {
            // An allowing rule must cover all that is asked for; a denying one matches if it covers any of it.
            let (mask, jump) = if rule.allow { (!rule.access & 7, JNE) } else { (rule.access, 0x15) };
            tests.push(vec![(MOV32_REG, 0, 3, 0), (AND32, 0, 0, mask), (jump, 0, 0, 0)]);
        }
        let flat: Vec<_> = tests.into_iter().flatten().collect();
        for (i, (code, dst, src, imm)) in flat.iter().copied().enumerate() {
            // To the next rule: past the remaining tests and the two instructions that return.
            let offset = if matches!(code, JNE | 0x15) { (flat.len() - i - 1 + 2) as i16 } else { 0 };
            program.push(insn(code, dst, src, offset, imm));
        }
        program.extend([insn(MOV64, 0, 0, 0, u32::from(rule.allow)), insn(EXIT, 0, 0, 0, 0)]);
    }
    let ends =
        rules.last().is_some_and(|r| r.kind.is_none() && r.major.is_none() && r.minor.is_none() && r.access == 7);
    if !ends {
        program.extend([insn(MOV64, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut r, mut at) = ([0u32; 16], 0usize);
        loop {
            let i = program[at];
            at += 1;
            let (dst, src) = ((i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, imm) = ((i >> 16) as u16 as usize, (i >> 32) as u32);
            match i as u8 {
                0x61 => r[dst] = context[offset / 4],
                0xbc => r[dst] = r[src],
                0x54 => r[dst] &= imm,
                0x74 => r[dst] >>= imm,
                0xb7 => r[dst] = imm,
                0x55 if r[dst] != imm => at += offset,
                0x15 if r[dst] == imm => at += offset,
                0x55 | 0x15 => {}
                0x95 => return r[0] == 1,
                other => panic!("code {other:#x}"),
            }
        }
    }

    #[test]
    fn without_rules_only_the_ordinary_devices_can_be_opened() {
        let program = compile(&[]).unwrap().unwrap();
        assert!(run(&program, CHAR, READ | WRITE, 1, 3));
        assert!(run(&program, CHAR, READ, 136, 7));
        assert!(run(&program, BLOCK, MKNOD, 8, 0));
        assert!(!run(&program, BLOCK, READ, 8, 0));
        assert!(!run(&program, BLOCK, READ | MKNOD, 8, 0));
        assert!(!run(&program, CHAR, READ, 1, 1));
    }

    #[test]
    fn later_rules_win() {
        let all = DeviceRule { allow: false, ..DeviceRule::default() };
        let disk =
            DeviceRule { allow: true, kind: Some("b".into()), major: Some(8), minor: None, access: Some("r".into()) };
        let program = compile(&[all.clone(), disk.clone()]).unwrap().unwrap();
        assert!(run(&program, BLOCK, READ, 8, 3));
        assert!(!run(&program, BLOCK, WRITE, 8, 3));
        let program = compile(&[disk, all]).unwrap().unwrap();
        assert!(!run(&program, BLOCK, READ, 8, 3));
        assert!(run(&program, CHAR, READ, 1, 9), "the ordinary devices are always allowed");
    }

    #[test]
    fn allowing_everything_needs_no_program() {
        assert!(compile(&[DeviceRule { allow: true, ..DeviceRule::default() }]).unwrap().is_none());
    }

    #[test]
    fn a_denial_of_one_access_denies_what_asks_for_more() {
        let all = DeviceRule { allow: true, ..DeviceRule::default() };
        let no_write = DeviceRule { allow: false, access: Some("w".into()), ..DeviceRule::default() };
        let program = compile(&[all, no_write]).unwrap().unwrap();
        assert!(run(&program, BLOCK, READ, 8, 0));
        assert!(!run(&program, BLOCK, READ | WRITE, 8, 0));
    }
}
