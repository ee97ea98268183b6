//! The vector registers: ciphers keep round keys in them and copies pass through them, and what they hold is a part
//! of every core of the process, long after the memory it came from was wiped.

/// Zeroes the vector registers of this thread, on x86-64; elsewhere it does nothing yet.
///
/// Called where work on secrets ends, for a thread that waits keeps its registers as they are.
pub fn clear_registers() {
    #[cfg(target_arch = "x86_64")]
    x86_64::clear();
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    pub(super) fn clear() {
        if std::arch::is_x86_feature_detected!("avx512f") {
            clear_upper_sixteen();
        }
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: the processor has the instruction, and the compiler is told that all it clears is changed.
            unsafe { asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack, preserves_flags)) };
        } else {
            clear_lower_sixteen();
        }
    }

    /// The C library copies through these where the processor has them.
    fn clear_upper_sixteen() {
        // SAFETY: the processor has the instructions, and the compiler is told that all they clear is changed.
        unsafe {
            asm!(
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        };
    }

    fn clear_lower_sixteen() {
        // SAFETY: every x86-64 processor has the instructions, and the compiler is told that all they clear is changed.
        unsafe {
            asm!(
                "xorps xmm0, xmm0",
                "xorps xmm1, xmm1",
                "xorps xmm2, xmm2",
                "xorps xmm3, xmm3",
                "xorps xmm4, xmm4",
                "xorps xmm5, xmm5",
                "xorps xmm6, xmm6",
                "xorps xmm7, xmm7",
                "xorps xmm8, xmm8",
                "xorps xmm9, xmm9",
                "xorps xmm10, xmm10",
                "xorps xmm11, xmm11",
                "xorps xmm12, xmm12",
                "xorps xmm13, xmm13",
                "xorps xmm14, xmm14",
                "xorps xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        };
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const MARK: u64 = 0x5ec2_e7ab_1dea_d001;

        /// Puts a mark into two registers, runs `between`, and reads them.
        fn kept(between: fn()) -> [u64; 2] {
            let (low, high): (u64, u64);
            // SAFETY: only registers are changed, which the compiler is told; the call is one of the C convention.
            unsafe {
                asm!(
                    "movq xmm15, {mark}", "movq xmm4, {mark}",
                    mark = in(reg) MARK, clobber_abi("sysv64"), options(nomem, nostack)
                );
            }
            between();
            // SAFETY: as above.
            unsafe {
                asm!("movq {low}, xmm15", "movq {high}, xmm4", low = out(reg) low, high = out(reg) high,
                    options(nomem, nostack));
            }
            [low, high]
        }

        #[test]
        fn nothing_stays_in_a_register() {
            assert_eq!(kept(|| ()), [MARK; 2], "the registers are not looked at");
            assert_eq!(kept(clear), [0; 2]);
            assert_eq!(kept(clear_lower_sixteen), [0; 2]);
        }
    }
}
