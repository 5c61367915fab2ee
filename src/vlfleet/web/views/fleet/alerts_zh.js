/** Alerts in Chinese: the server speaks English. One that is not known here is told in the server's words. */

import { number, percent, rough } from "../../lib/format.js";

/** By code: what is wrong, with {subject}, {value}, {share} and {count}, and what to do. */
export const WORDS = {
  gpu_memory_high: [
    "{subject} 已用显存 {share}",
    "降低 --max-num-seqs 或 --max-pixels，或用 nvidia-smi 查看还有谁在占用",
  ],
  gpu_memory_full: [
    "{subject} 已用显存 {share}，超过 vLLM 自己占用的部分",
    "下一张大图可能使引擎退出：降低 --gpu-memory-utilization，或结束该 GPU 上的其他程序",
  ],
  gpu_hot: ["{subject} 温度 {count} °C", "检查风扇与风道；约 90 °C 时 GPU 会自行降速"],
  gpu_throttled: [
    "{subject} 在最近一分钟的 {share} 时间里因过热或供电而降速",
    "检查散热与供电；`nvidia-smi -q -d PERFORMANCE` 会说明原因",
  ],
  gpu_imbalance: [
    "{subject} 的利用率比其他 GPU 低 {share}",
    "查看 `vlfleet status`：其副本可能已移出轮转、启动缓慢，或分到的请求很少",
  ],
  gpu_alone: [
    "{subject} 利用率 {share}，其他 GPU 全部空闲",
    "每块 GPU 一个副本才能用上全部 GPU：`vlfleet plan` 会说明；device_map=auto 会让 GPU 轮流工作",
  ],
  gpu_memory_uneven: [
    "{subject} 显存已满，比同一副本的另一块 GPU 高 {share}",
    "各层分布不均：张量并行会平分，device_map=auto 不会；`vlfleet plan` 会说明",
  ],
  gpu_broken: ["{subject} 已丢失，或有不可纠正的显存错误", "查看 `dmesg` 与 `nvidia-smi -q -d ECC`；重置或更换该卡"],
  gpu_xid: ["{subject} 报告了 Xid {count}", "`vlfleet cordon {subject}`，再查看 `dmesg`；重置或更换该卡"],
  gpu_xid_program: ["{subject}：Xid {count}，由程序引起", "查看该副本的日志：`vlfleet logs`"],
  host_memory: ["主机内存已用 {share}", "降低 --mm-processor-cache-gb（每个副本各有一份），或减少副本"],
  disk_full: ["集群目录所在磁盘已用 {share}", "请腾出空间：磁盘写满后日志、历史和上传会停止，服务继续"],
  replica_crowded: [
    "{subject} 处理中的请求是其他副本的 {value} 倍",
    "查看 `vlfleet route explain`：使用 predicted 策略时，这表示它较慢，或有长视频在等待",
  ],
  replica_slow: [
    "{subject} 的首 token 用时是其他副本的 {value} 倍",
    "与其他 GPU 比较频率和温度；`vlfleet restart --replica {subject}`",
  ],
  kv_pressure: [
    "{subject} 的 KV 缓存已用 {share}",
    "等待的请求多于运行的：降低 --max-model-len 或 --max-pixels，增加副本，或量化",
  ],
  preemptions: [
    "{subject} 一分钟内有 {count} 个序列被挤出 KV 缓存",
    "每个都要重新计算：降低 --max-num-seqs，或给 KV 缓存更多显存",
  ],
  media_cache_thrash: [
    "{subject} 忘记了应当保留的图片中的 {share}",
    "缓存小于工作集：增大 --mm-processor-cache-gb 与编码器缓存",
  ],
  prediction_drift: [
    "对 {subject} 的预测偏差 {value} 倍",
    "`vlfleet calibrate` 会测量本机；GPU 被共享或降速时也会如此",
  ],
  crash_loop: [
    "{subject} 在一刻钟内退出了 {count} 次",
    "`vlfleet status` 会说明上次退出的原因，`vlfleet doctor log` 会解释其日志",
  ],
  replica_failed: [
    "{subject} 已被放弃",
    "`vlfleet status` 会说明原因；`vlfleet restart --replica {subject}` 会再试一次",
  ],
  replica_unhealthy: ["{subject} 仍在运行，但没有响应", "它已移出轮转，若持续如此会被替换；日志见 `vlfleet logs`"],
  metrics_stale: ["{subject} 已有 {count} 秒没有回应 /metrics", "其 API 服务过载或卡住：`vlfleet logs`"],
  metrics_lie: [
    "{subject} 的 /metrics 中有 {count} 处不可能的数值",
    "同一端口后有多个 API 服务、且 PROMETHEUS_MULTIPROC_DIR 不在本地磁盘时会这样",
  ],
  media_twice: [
    "{share} 的图片被不同副本重复编码",
    "predicted 策略让同一图片留在一个副本，但会分散极热门的图片；其他策略会分散全部图片",
  ],
  queue_growth: ["等待的请求比一分钟前多 {count} 个", "请求超过集群的能力：增加副本，或降低 --max-pixels"],
  requests_refused: [
    "队列已满，一分钟内拒绝了 {count} 个请求",
    "客户端会收到带 Retry-After 的 503：增加副本，或让它们等待更久",
  ],
  slo_burn: ["失败或迟到的请求是目标允许的 {count} 倍", "在 `vlfleet status` 和其他告警中查看是哪个副本失败或缓慢"],
  nobody_ready: ["没有就绪的副本", "`vlfleet status` 会说明它们在做什么；请求会等待，或收到 503"],
};

/** The alert with text and advice in Chinese. */
export function inChinese(alert) {
  const words = WORDS[alert.code];
  if (!words) return alert;
  const { subject, value } = alert;
  const vars = { subject, value: rough(value), share: percent(value), count: number(value) };
  const [text, advice] = words.map((each) => each.replace(/\{(\w+)\}/g, (_, name) => vars[name]));
  return { ...alert, text, advice };
}
