import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.SocketChannel;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import java.io.File;
import java.nio.charset.StandardCharsets;

/** Answers each request with its path, over HTTPS with netty's BoringSSL: PORT CERTIFICATE KEY. */
public class Server extends ChannelInitializer<SocketChannel> {
    private final SslContext ssl;

    private Server(SslContext ssl) {
        this.ssl = ssl;
    }

    public static void main(String[] arguments) throws Exception {
        SslContext ssl = SslContextBuilder.forServer(new File(arguments[1]), new File(arguments[2]))
                .sslProvider(SslProvider.OPENSSL)
                .build();
        new ServerBootstrap()
                .group(new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory()))
                .channel(NioServerSocketChannel.class)
                .childHandler(new Server(ssl))
                .bind("127.0.0.1", Integer.parseInt(arguments[0]))
                .sync();
        System.out.println("ready");
    }

    @Override
    protected void initChannel(SocketChannel channel) {
        channel.pipeline().addLast(ssl.newHandler(channel.alloc()), new HttpServerCodec(), new HttpObjectAggregator(65536), new Answer());
    }

    private static class Answer extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
            var body = Unpooled.copiedBuffer(request.uri(), StandardCharsets.UTF_8);
            var response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK, body);
            HttpUtil.setContentLength(response, body.readableBytes());
            context.writeAndFlush(response);
        }
    }
}
