"""The words of a report in the languages that it is written in. One key, one meaning.

Full-width marks are the right ones in Chinese text.
"""
# ruff: noqa: RUF001

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Energy and carbon account",
        "span": "Span", "periods": "periods booked", "not_booked": "not booked",
        "scope": "Scope", "method": "Method", "policy": "policy", "losses": "losses",
        "energy": "Energy", "carbon": "Carbon", "node": "node", "kwh": "kWh", "kg": "kg CO2e", "intensity": "g/kWh",
        "energy_flow": "Energy by flow", "carbon_flow": "Carbon by flow", "bus": "site bus",
        "from_battery": "from storage", "charged": "charged", "discharged": "discharged", "loss": "declared losses",
        "unknown": "unknown", "over_time": "Energy and grid factor over time", "origins": "Where the energy came from",
        "direct": "same period", "stored": "through storage",
        "indicators": "Indicators", "scope2": "Scope 2", "location": "location-based",
        "market": "market-based, matched period by period", "netted": "market-based, netted over the span",
        "matched": "share of import matched period by period",
        "no_instruments": "no contractual instruments were given",
        "quality": "Quality of the numbers", "by_status": "Import by status of its factor",
        "by_quality": "Energy by quality", "gaps": "Gaps and substituted values", "none": "none",
        "more": "more in report.json", "flags": "Flags", "consequence": "Consequence, by marginal factors",
        "consequence_note": "A ledger of its own with marginal factors; never add it to the account above.",
        "caused": "caused by charging", "avoided": "avoided by discharging",
        "break_even": "Moving energy pays only where the factor at discharge exceeds that at charge by",
        "evidence": "Same-period electricity evidence record", "not_given": "not given", "source": "source",
        "same_period": "same period, MWh", "ledger": "Ledger", "entries": "entries", "root": "root hash",
        "digest": "digest of these numbers", "factors": "factors", "residual": "residual share",
        "interim": "interim: a PUE is declared over twelve months",
        "by_difference": "IT by difference", "eu": "Fields of (EU) 2024/1364", "not_measured": "not measured",
        "hourly_match": "hourly matched share", "cfe": "24/7 CFE score",
        "unverified": "unverified", "flow": "flow", "from": "from", "to": "to", "unit_kwh": "kWh",
    },
    "zh": {
        "title": "能源与碳账目",
        "span": "时段", "periods": "个已记账周期", "not_booked": "未记账",
        "scope": "范围", "method": "方法", "policy": "策略", "losses": "损耗",
        "energy": "电量", "carbon": "碳", "node": "节点", "kwh": "千瓦时", "kg": "千克 CO2e", "intensity": "克/千瓦时",
        "energy_flow": "电量流向", "carbon_flow": "碳流向", "bus": "站点母线",
        "from_battery": "来自储能", "charged": "充电", "discharged": "放电", "loss": "申报损耗",
        "unknown": "未知", "over_time": "电量与电网因子随时间变化", "origins": "电量来源",
        "direct": "同一周期", "stored": "经储能",
        "indicators": "指标", "scope2": "范围二", "location": "基于位置",
        "market": "基于市场，逐周期匹配", "netted": "基于市场，全时段净额",
        "matched": "逐周期匹配的购电比例", "no_instruments": "未提供合同凭证",
        "quality": "数据质量", "by_status": "按因子状态划分的购电", "by_quality": "按质量划分的电量",
        "gaps": "缺口与替代值", "none": "无", "more": "其余见 report.json", "flags": "标记",
        "consequence": "后果账（边际因子）", "consequence_note": "独立的边际因子账目，不得与上文账目相加。",
        "caused": "充电引起", "avoided": "放电避免",
        "break_even": "仅当放电时因子超过充电时因子达到以下倍数，移峰才减碳：",
        "evidence": "同周期电力证据记录", "not_given": "未提供", "source": "来源",
        "same_period": "同周期，兆瓦时", "ledger": "账本", "entries": "条目", "root": "根哈希",
        "digest": "本报告数字摘要", "factors": "因子", "residual": "残差比例",
        "interim": "临时值：PUE 须以十二个月申报",
        "by_difference": "IT 电量由差值得出", "eu": "(EU) 2024/1364 字段", "not_measured": "未测量",
        "hourly_match": "小时匹配比例", "cfe": "24/7 无碳能源得分",
        "unverified": "未经核验", "flow": "流", "from": "起", "to": "止", "unit_kwh": "千瓦时",
    },
}  # fmt: skip

SCOPE_ZH = (
    "本账目仅涵盖所述边界内计量的电量及其发电排放，未经核验。本账目不对任何货物作出声明；"
    "计算服务不属于 (EU) 2023/956 号条例所列货物。经储能转移到其他周期的电量单独列示，不作为同周期供电。"
)
POLICY_ZH = "范围二总量与分摊策略无关：它等于计量购电量乘以购电周期的因子。策略只在时间、节点、外送与损耗之间移动碳量。"
DEFINITIONS_ZH = {
    "ref": "可再生能源 / E_DC，最大为 1（ISO/IEC 30134-3）：本地使用的自有发电与已注销的证书",
    "erf": "在交接点再利用的热量 / E_DC（ISO/IEC 30134-6）",
    "wue_l_per_kwh": "取水量 / E_IT（ISO/IEC 30134-9）",
    "hourly_matched_share": "各 UTC 小时 min(L, 自用 + 合同) 之和 / L 之和；L = 购电 + 本地使用的自有发电，"
                            "合同 = 因子为 0 的凭证；余量不转入其他小时",
    "cfe_score": "各 UTC 小时 [c + (L - c) g] 之和 / L 之和；c = min(L, 自用 + 合同)，"
                 "g = 该小时电网无碳比例，未知时为 0",
}  # fmt: skip
