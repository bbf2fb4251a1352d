"""The words of a report in the languages that it is written in. One key, one meaning.

Full-width marks are the right ones in Chinese text.
"""
# ruff: noqa: RUF001, E501

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Energy and carbon account",
        "span": "Span", "periods": "periods booked", "not_booked": "not booked",
        "scope": "Scope", "method": "method", "policy": "policy", "losses": "losses",
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
        "digest": "digest of these numbers", "factors": "Factors", "residual": "residual share",
        "interim": "interim: a PUE is declared over twelve months",
        "by_difference": "IT by difference", "eu": "Fields of (EU) 2024/1364",
        "unverified": "unverified", "flow": "flow", "from": "from", "to": "to",
        "glance": "At a glance", "site_energy": "energy used by the site", "glance_scope2": "Scope 2, location-based",
        "it_intensity": "carbon of the IT load", "own_share": "share of own generation", "interim_word": "interim",
        "import_cost": "cost of the import", "per": "carbon per", "stock_open": "in storage at the start",
        "stock_close": "in storage at the end", "balance": "Largest error of the carbon balance of any period",
        "origins_note": "Through storage: taken out of a battery that was charged with it, at the average policy in "
                        "proportion to what it held. Opening stock: in the battery before the account began.",
        "jobs": "Carbon of the computation", "jobs_in": "jobs in", "days_settled": "settled days.", "unit": "unit",
        "amount": "amount", "g_unit": "g per unit", "g_unit_room": "with the room", "metered": "metered, kWh",
        "by_jobs": "jobs, kWh", "idle_word": "idle, kWh", "software": "software says, kWh", "coverage": "coverage",
        "coverage_title": "Whose the metered energy is", "by_time": "by reserved time", "owner": "owner",
        "owners": "By owner", "no_owner": "(none)", "top_jobs": "The ten jobs with the most carbon", "job": "job",
        "set_aside": "Set aside, not counted", "job_logs": "Job logs",
        "idle": "Drawn while no useful work ran", "idle_energy": "idle energy", "idle_part": "of the metered IT energy",
        "idle_carbon": "idle carbon", "idle_cost": "idle cost", "no_price": "no price given",
        "idle_note": "By hour of the day, UTC. A node is idle while none of its jobs runs.",
        "shifting": "Did moving energy through the battery pay?", "account": "by", "at_charge": "charging, g/kWh",
        "at_discharge": "discharging, g/kWh", "ratio": "ratio", "paid": "above break-even",
        "by_average": "average factors (inventory)", "by_marginal": "marginal factors (consequence)", "yes": "yes",
        "no": "no", "no_marginal": "No marginal factors were given: what shifting caused elsewhere is not known.",
        "stop": ".", "kg_kwh": "kg/kWh", "grid_mean": "mean factor of the import", "records": "meter records",
        "lost": "lost (shape only, no energy)", "readings": "Registers read by file", "meter": "meter",
        "quantity": "quantity", "read_total": "in the span", "read_less_booked": "less what was booked",
        "edits": "Corrections", "author": "author", "reason": "reason",
        "periods_word": "periods", "kind": "kind", "shifted": "Moved to another period", "see_gap": "gap",
        "made": "How each number was made", "quality_word": "quality", "status": "status", "meaning": "meaning",
        "made_note": "One row a flow, quality and method. Each period of each flow and node is a row of report.csv, and an "
                     "entry of the ledger.",
        "status_actual": "published for that time after the fact", "status_estimated": "the source's own estimate",
        "status_forecast": "no actual value yet, the forecast counts", "status_held": "missing, the value before counts, "
        "two hours at most", "status_fallback": "missing, the fallback of the site file counts", "formulas": "Formulas",
        "formula_pool": "Carbon of a node: in each period everything that came in is one pool; each node takes its energy "
                        "times the pool's carbon per kWh. Summed over the periods.",
        "formula_stock": "Storage: a stock of energy and of carbon. Charging adds energy times charge efficiency with the "
                         "pool's carbon; discharging takes energy over discharge efficiency with its share of the carbon.",
        "formula_own": "Own generation over the energy of all loads: of the same period, and through storage.",
        "formula_residual": "Residual: what came in and no meter saw go out, over everything that came in.",
        "formula_market": "Market-based: per period the instruments of that period first, the residual mix for the rest.",
        "formula_cost": "import of each period times its price.",
        "formula_shift": "Ratio: mean grid factor while discharging over that while charging, each weighted by the energy "
                         "moved. Break-even: 1 / (charge efficiency x discharge efficiency).",
        "formula_room": "With the room: times the carbon of the whole site over that of its IT load.",
        "formula_sci": "SCI (ISO/IEC 21031): carbon with the room plus embodied carbon, per unit; needs embodied_kg and "
                       "slots in the site file.",
        "formula_coverage": "Coverage: energy that software counted over the metered energy that the jobs got.",
        "formula_idle": "Idle share: idle energy over metered energy of the settled days.",
        "periods_quarter": "Period by period", "periods_day": "Day by day", "periods_month": "Month by month",
        "periods_note": "Energy in kWh, factor in g/kWh, carbon of the loads in kg CO2e, then the ledger entries. Residual: "
                        "positive went out unmetered, negative came in.",
        "p_import": "import", "p_own": "own", "p_out": "discharge", "p_in": "charge", "p_export": "export",
        "p_loads": "loads", "p_residual": "residual", "p_factor": "factor", "p_carbon": "carbon", "p_note": "note",
        "marked": "substituted flows:", "check": "Check: tidegate carbon verify LEDGER --report report.json",
        "ef_method": "factor", "mean_kw": "kW, mean", "idle_kwh": "idle, kWh", "page": "page", "of": "of",
        "not_measured": "not measured",
        "hourly_match": "hourly matched share",
        "cfe": "24/7 CFE score",
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
        "by_difference": "IT 电量由差值得出", "eu": "(EU) 2024/1364 字段",
        "unverified": "未经核验", "flow": "流", "from": "起", "to": "止",
        "glance": "概览", "site_energy": "站点用电量", "glance_scope2": "范围二，基于位置",
        "it_intensity": "IT 负载碳强度", "own_share": "自发电占比", "interim_word": "临时值",
        "import_cost": "购电费用", "per": "碳排放，每", "stock_open": "期初储能存量",
        "stock_close": "期末储能存量", "balance": "各周期碳平衡的最大误差",
        "origins_note": "经储能：取自曾以该来源充电的电池；average 策略下按存量比例计。期初存量：账目开始之前已在电池中的电量。",
        "jobs": "计算任务的碳排放", "jobs_in": "个任务，已结算", "days_settled": "天。", "unit": "单位",
        "amount": "数量", "g_unit": "每单位克数", "g_unit_room": "含机房分摊", "metered": "计量，千瓦时",
        "by_jobs": "任务，千瓦时", "idle_word": "空闲，千瓦时", "software": "软件计数，千瓦时", "coverage": "覆盖率",
        "coverage_title": "计量电量的归属", "by_time": "按预留时间", "owner": "所有者",
        "owners": "按所有者", "no_owner": "（无）", "top_jobs": "碳排放最多的十个任务", "job": "任务",
        "set_aside": "已搁置、未计入", "job_logs": "任务日志",
        "idle": "无有效任务时的用电", "idle_energy": "空闲电量", "idle_part": "占 IT 计量电量",
        "idle_carbon": "空闲碳排放", "idle_cost": "空闲费用", "no_price": "未给出电价",
        "idle_note": "按一天中的小时（UTC）。节点上没有任务运行时即为空闲。",
        "shifting": "经电池移峰是否减碳？", "account": "依据", "at_charge": "充电时，克/千瓦时",
        "at_discharge": "放电时，克/千瓦时", "ratio": "比值", "paid": "高于盈亏平衡",
        "by_average": "平均因子（清单账）", "by_marginal": "边际因子（后果账）", "yes": "是",
        "no": "否", "no_marginal": "未给出边际因子：移峰对外部的影响未知。",
        "stop": "。", "kg_kwh": "千克/千瓦时", "grid_mean": "购电平均因子", "records": "条电表记录",
        "lost": "条丢失（只影响形状，不影响电量）", "readings": "由文件读入的表计读数", "meter": "表计",
        "quantity": "量", "read_total": "本时段", "read_less_booked": "与已记账之差", "edits": "更正", "author": "更正人", "reason": "原因",
        "periods_word": "周期数", "kind": "类别", "shifted": "转移到其他周期", "see_gap": "缺口",
        "made": "每个数字的来历", "quality_word": "质量", "status": "状态", "meaning": "含义",
        "made_note": "每个流、质量与方法一行。每个流和节点的每个周期都是 report.csv 的一行，也是账本的一个条目。",
        "status_actual": "事后公布的实际值", "status_estimated": "数据源自己的估计值",
        "status_forecast": "尚无实际值，采用预测值", "status_held": "缺失，沿用前值，最多两小时",
        "status_fallback": "缺失，采用站点文件的备用值", "formulas": "公式",
        "formula_pool": "节点的碳：每个周期的全部流入汇成一池，各节点按电量乘以池的单位碳量分得；再对周期求和。",
        "formula_stock": "储能：电量与碳量的存量。充电增加电量乘以充电效率及池中的碳；放电取出电量除以放电效率及相应比例的碳。",
        "formula_own": "自发电与全部负载电量之比：同一周期的，以及经储能的。",
        "formula_residual": "残差：流入而无电表见其流出的电量，与全部流入之比。",
        "formula_market": "基于市场：每个周期先用该周期的凭证，其余按剩余组合计。",
        "formula_cost": "各周期购电量乘以其电价。",
        "formula_shift": "比值：放电时与充电时的电网平均因子之比，各按所移电量加权。盈亏平衡：1 /（充电效率 x 放电效率）。",
        "formula_room": "含机房分摊：乘以全站碳量与 IT 负载碳量之比。",
        "formula_sci": "SCI（ISO/IEC 21031）：含机房分摊的碳加隐含碳，按单位计；需在站点文件中给出 embodied_kg 和 slots。",
        "formula_coverage": "覆盖率：软件计数的电量与任务分得的计量电量之比。",
        "formula_idle": "空闲占比：已结算日的空闲电量与计量电量之比。",
        "periods_quarter": "逐周期", "periods_day": "逐日", "periods_month": "逐月",
        "periods_note": "电量单位千瓦时，因子单位克/千瓦时，负载碳量单位千克 CO2e，然后是账本条目。残差：正值为未计量流出，负值为未计量流入。",
        "p_import": "购电", "p_own": "自发", "p_out": "放电", "p_in": "充电", "p_export": "外送",
        "p_loads": "负载", "p_residual": "残差", "p_factor": "因子", "p_carbon": "碳", "p_note": "备注",
        "marked": "替代值的流：", "check": "核对：tidegate carbon verify LEDGER --report report.json",
        "ef_method": "因子类别", "mean_kw": "千瓦，平均", "idle_kwh": "空闲，千瓦时", "page": "第", "of": "页，共",
        "not_measured": "未测量",
        "hourly_match": "小时匹配比例",
        "cfe": "24/7 无碳能源得分",
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

# Nodes, origins and words of the ledger as a reader calls them; what is not here is shown as it is.
NAMES: dict[str, dict[str, str]] = {
    "en": {
        "it": "IT", "it (all)": "IT (all)", "residual": "residual, unmetered", "unmetered": "unmetered inflow",
        "opening": "opening stock", "unknown": "unknown origin", "gpu_hour": "GPU-hour", "charge_booked": "charge, booked at "
        "purchase", "carry": "carried", "expense": "expensed", "at_charge": "at charge",
    },
    "zh": {
        "grid": "电网", "it": "IT", "it (all)": "IT（全部）", "cooling": "制冷", "lighting": "照明", "other": "其他",
        "pv": "光伏", "generator": "发电机", "export": "外送", "residual": "残差（未计量）",
        "unmetered": "未计量流入", "opening": "期初存量", "unknown": "来源不明", "storage": "储能",
        "good": "良好", "estimated": "估计", "substituted": "替代", "edited": "人工更正", "bad": "错误", "missing": "缺失",
        "actual": "实际", "forecast": "预测", "held": "沿用", "fallback": "备用",
        "job": "任务", "gpu_hour": "GPU 小时", "token": "令牌", "request": "请求",
        "average": "平均", "fifo": "先进先出", "priority": "优先", "at_charge": "购电时入账", "carry": "结转",
        "expense": "核销",
    },
}  # fmt: skip

# Fixed sentences of a document, in Chinese.
SENTENCES_ZH: dict[str, str] = {
    "no meter of the IT load: it is what grid, generation and storage leave after the metered loads, "
    "and a residual cannot show": "IT 负载没有电表：其电量为电网、自发电与储能减去已计量负载之差，因此看不出残差",
    "IT by difference, no category": "IT 电量由差值得出，无类别",
    "as metered": "按计量",
    "ERF: no heat meter": "ERF：无热量表",
    "WUE: no water meter": "WUE：无水表",
    "ITEEsv, ITEUsv: no benchmark data": "ITEEsv、ITEUsv：无基准测试数据",
    "not claimed as same-period": "不作为同周期供电",
    "register": "电表读数", "integral": "快速功率积分", "edited": "人工更正", "none": "无",
    "register over flat shape": "电表读数，均匀分布", "register over linear shape": "电表读数，线性分布",
    "register over like day": "电表读数，按相似日分布",
    "Metered energy is the whole; software energy or reserved time gives the shares only. With room: "
    "times the carbon of the whole site over that of its IT load. SCI as ISO/IEC 21031 has it needs "
    "embodied_kg and slots in the site file.":
        "计量电量为总量；软件电量或预留时间只给出份额。含机房分摊：乘以全站碳量与 IT 负载碳量之比。"
        "ISO/IEC 21031 的 SCI 需要站点文件中的 embodied_kg 和 slots。",
}  # fmt: skip
